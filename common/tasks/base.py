"""What a task is: which target a data set offers, its loss, and what its predictions are."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from common.config import TaskSection
from common.data.base import Batch, Dataset
from common.errors import ConsiliumError
from common.metrics.base import Predictions


class Task(Protocol):
    """Contract of every task; knows no model.

    Built from the run's settings and the *class names* alone, so that every site builds the same one.
    """

    outputs: int
    """Channels of the model's head."""
    dense: bool
    """Whether the head gives one logit per pixel."""
    class_names: tuple[str, ...]
    """What the columns of the predictions mean."""
    metrics: tuple[str, ...]
    """Names in METRICS, the primary one first."""

    def __init__(self, settings: TaskSection, classes: tuple[str, ...], mask_classes: tuple[str, ...]) -> None: ...

    def prepare(self, dataset: Dataset) -> Dataset:
        """Give the data set with labels as the task wants them (binary: 0/1 by `positive`).

        Raises:
            DataError: The target is missing.
        """
        ...

    def class_weights(self, dataset: Dataset) -> NDArray[np.float32]:
        """Weigh classes by their inverse frequency here, mean one over the classes present; `loss` takes them.

        Shapes: binary [2] (negative, positive); multi-class [K]; multi-label [L, 2] (absent, present); segmentation
        [1 + foreground classes], background first.
        """
        ...

    def loss(self, logits: Tensor, batch: Batch, weights: Tensor | None = None) -> Tensor:
        """Mean loss over the batch, a scalar; float32 whatever the autocast."""
        ...

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits into probabilities, same shape: averaging these makes an ensemble."""
        ...

    def collect(self, batches: Iterable[tuple[Tensor, Batch]], patients: NDArray[np.str_]) -> Predictions:
        """Reduce (probabilities, batch) pairs, in order, to predictions for `patients` [N].

        Raises:
            ConsiliumError: Predictions are not finite.
        """
        ...


def check_finite(values: NDArray[np.float64]) -> None:
    """Refuse to judge a model whose outputs are NaN or infinite.

    Raises:
        ConsiliumError: As said.
    """
    bad = int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).sum())
    if bad:
        raise ConsiliumError(
            f"the model's predictions are not finite for {bad} of {len(values)} images. Only finite ones can be "
            f"judged; training has diverged: lower `train.learning-rate` and run again."
        )
