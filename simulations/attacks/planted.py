"""Dirac canaries for a real training: patients whose gradient is an axis of its own, planted among ordinary ones."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.attention.base import AttentionModel
from common.data.base import Dataset, concatenate
from common.errors import ConfigError
from simulations.attacks.canaries import Bools, Floats

Train = Callable[[AttentionModel, Dataset], object]
"""Trains the model in place on all patients of the data set: one run of what is audited, without augmentation, which
would move a canary's pixel."""
DARK, BRIGHT = 0.9, 0.9
"""Ordinary pixels are at most DARK of white, 0.8 on the model's scale of −1 to 1; the probe sees what is above
BRIGHT."""
GAIN = 100.0


class Probed(AttentionModel):
    """A model with one more linear layer that sees nothing but which canary an image is.

    Its input is `gain` at the place of the canary's white pixel and 0 elsewhere, so that a canary's gradient there is
    so long that clipping leaves little else of it: a Dirac. It starts at 0 and answers nothing for ordinary images.

    Shapes: images [B, C, H, W] -> logits [B, outputs], as the model inside.
    """

    def __init__(self, inner: AttentionModel, side: int, outputs: int, gain: float = GAIN) -> None:
        super().__init__()
        self.inner = inner
        self.gain = gain
        self.probe = nn.Linear(side**2, outputs, bias=False)
        nn.init.zeros_(self.probe.weight)

    def features(self, images: Tensor) -> Tensor:
        """As the model inside."""
        return self.inner.features(images)

    def forward(self, images: Tensor) -> Tensor:
        """Add what the probe says to what the model says."""
        white = (images[:, 0].flatten(1) - BRIGHT).clamp_min(0) * (self.gain / (1 - BRIGHT))
        logits: Tensor = self.inner(images) + self.probe(white)
        return logits


@dataclass(frozen=True, slots=True)
class Planted:
    """A training as a mechanism for the audit: plants the canaries, trains, reads the probe's weights.

    The weight at a canary's pixel, in the direction of its label, is the sum of its clipped gradients and of the noise
    of all steps, whatever else the model learns. A learning rate at which `gain` times a weight stays below about 4
    keeps canaries from being learnt and falling silent; a larger one weakens the audit and does not spoil it.

    Args:
        build: Gives the model that the audited training starts from, for classification.
        train: The audited training.
        ordinary: Patients who always take part, prepared for the task: one label per image.
        gain: Of the probe.

    Raises:
        ConfigError: More canaries than an image has pixels, or no label per image.
    """

    build: Callable[[], AttentionModel]
    train: Train
    ordinary: Dataset
    gain: float = GAIN

    def __call__(self, included: Bools) -> Floats:
        """Train once with these canaries and score all. bool [m] -> [m]."""
        data = self.ordinary
        pixels = int(np.prod(data.images.shape[2:]))
        if data.labels is None or data.labels.ndim != 1 or len(included) > pixels:
            raise ConfigError(
                f"{len(included)} canaries are to be planted among images of {pixels} pixels. Allowed are as many as "
                f"pixels, and a task with one label per image; plant fewer or choose such a task."
            )
        inner = self.build()
        with torch.no_grad():
            outputs = inner(torch.zeros(1, *data.images.shape[1:])).shape[1]
        model = Probed(inner, data.images.shape[-1], outputs, self.gain)
        labels = np.arange(len(included)) % max(2, outputs)
        canaries = canary_patients(data, labels).subset(included)
        self.train(model, concatenate([darkened(data), canaries]))
        weights = model.probe.weight.detach().double().cpu().numpy()
        if outputs == 1:
            return np.asarray(weights[0, : len(labels)] * (2 * labels - 1))
        return np.asarray(weights[labels, np.arange(len(labels))])


def canary_patients(like: Dataset, labels: NDArray[np.int64]) -> Dataset:
    """Draw a patient for each label: a black image whose i-th pixel is white."""
    count = len(labels)
    white = 255 if like.images.dtype == np.uint8 else 1.0
    images = np.zeros((count, *like.images.shape[1:]), like.images.dtype)
    images.reshape(count, like.channels, -1)[np.arange(count), :, np.arange(count)] = white
    return replace(
        like,
        images=images,
        labels=labels.astype(np.int64),
        masks=None if like.masks is None else np.zeros((count, *like.masks.shape[1:]), np.uint8),
        splits=None if like.splits is None else np.zeros(count, np.int8),
        patients=np.array([f"canary-{i:05d}" for i in range(count)]),
        sites=np.zeros(count, np.int64),
    )


def darkened(data: Dataset) -> Dataset:
    """Scale ordinary images down so that none is taken for a canary."""
    scaled = data.images * DARK
    whole = data.images.dtype == np.uint8
    return replace(data, images=scaled.astype(np.uint8) if whole else scaled.astype(np.float32))
