"""The contract of gradient engines: one patient's gradient is the mean over his images, and only then is it clipped."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import vmap

from common.data.base import Batch
from common.tasks.base import Task

AUTOMATIC_FLOOR = 0.01
ImageLosses = Callable[[Tensor, Batch], Tensor]
"""Loss of each image: logits [B, …], batch -> [B]. No image's loss may depend on another image."""


@dataclass(frozen=True, slots=True)
class Clip:
    """How a patient's gradient is brought to a norm of at most `norm`.

    flat: factor min(1, C/‖g‖) (Abadi et al. 2016). automatic: factor C/(‖g‖ + 0.01) (Bu et al. 2023, eq. 4), which
    needs no tuning of C. A gradient that is not finite counts as zero, so that no patient can spoil the sum.
    """

    norm: float
    kind: Literal["flat", "automatic"] = "flat"

    def factors(self, norms: Tensor) -> Tensor:
        """Give each patient's factor, [P]; 0 where the norm is not finite."""
        if self.kind == "automatic":
            found = self.norm / (norms + AUTOMATIC_FLOOR)
        else:
            found = self.norm / norms.clamp_min(self.norm)
        return torch.where(norms.isfinite(), found, torch.zeros_like(found))


@dataclass(frozen=True, slots=True, eq=False)
class Clipped:
    """Σ over patients of their clipped gradients, a tensor for each parameter that learns, and each patient's norm."""

    total: list[Tensor]
    norms: Tensor


class Engine(Protocol):
    """Contract of every engine."""

    def __call__(self, model: nn.Module, losses: ImageLosses, batch: Batch, patients: Tensor, clip: Clip) -> Clipped:
        """Add up the clipped gradients of the patients of one micro-batch.

        Args:
            model: In the mode it should train in; its parameters and their `.grad` are left as they are.
            losses: Loss of each image.
            batch: All images of each of its patients.
            patients: Which patient each image is of, 0 to P − 1, each at least once.
            clip: To which norm.

        Shapes: patients int64 [B] -> total as `learning(model)`, norms [P].

        Raises:
            UnsupportedModelError: A layer mixes patients, or the engine cannot take it apart; it is named.
        """
        ...


def learning(model: nn.Module) -> dict[str, nn.Parameter]:
    """Give the parameters that learn, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def shares(patients: Tensor, like: Tensor) -> Tensor:
    """Give what each image counts, one over its patient's images, in the dtype of `like`. [B] -> [B]."""
    return 1.0 / torch.bincount(patients)[patients].to(like.dtype)


def image_losses(task: Task) -> ImageLosses:
    """Make a task's loss one of single images: that of a batch of one, so that no image sees another.

    The Dice loss of segmentation is then that of each image; over a batch it would mix patients.
    """

    def alone(logits: Tensor, columns: dict[str, Tensor]) -> Tensor:
        whole = {name: column[None] for name, column in columns.items()}
        return task.loss(logits[None], Batch(whole["images"], whole.get("labels"), whole.get("masks")))

    def losses(logits: Tensor, batch: Batch) -> Tensor:
        if len(logits) == 1:
            return task.loss(logits, batch)[None]
        columns = {"images": batch.images, "labels": batch.labels, "masks": batch.masks}
        return vmap(alone)(logits, {name: column for name, column in columns.items() if column is not None})

    return losses
