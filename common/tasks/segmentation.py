"""Segmentation of 2D images: Dice and cross-entropy as loss, predictions reduced image by image."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from common.config import TaskSection
from common.data.base import Batch, Dataset
from common.errors import DataError
from common.metrics.base import Segmented, concatenate
from common.metrics.calibration import BINS
from common.metrics.segmentation import hd95
from common.tasks.base import check_finite
from common.tasks.targets import balanced

SMOOTH = 1.0  # one pixel: keeps the Dice loss and its gradient finite where neither mask nor prediction has any


class Segmentation:
    """A class per pixel; one logit per pixel if there is one foreground class, else one per class with background.

    Mask classes are (background, foreground, ...); none or one name means one foreground class.
    """

    metrics = ("dice", "hd95", "ece", "brier")
    dense = True

    def __init__(self, settings: TaskSection, classes: tuple[str, ...], mask_classes: tuple[str, ...]) -> None:
        self._single = len(mask_classes) <= 2
        self.outputs = 1 if self._single else len(mask_classes)
        self.class_names = (mask_classes or ("foreground",))[-1:] if self._single else mask_classes[1:]

    def prepare(self, dataset: Dataset) -> Dataset:
        """Give the data set as it is.

        Raises:
            DataError: There are no masks, or they hold more classes than the task has.
        """
        if dataset.masks is None:
            raise DataError(
                f"{dataset.name}: there are no masks. Segmentation needs them; check `data.mask` or set `task.name` to "
                f"binary, multiclass or multilabel."
            )
        if int(dataset.masks.max()) > len(self.class_names):
            raise DataError(
                f"{dataset.name}: masks hold the value {dataset.masks.max()}; the task has {len(self.class_names)} "
                f"foreground classes ({', '.join(self.class_names)}). Name all mask classes, or merge them."
            )
        return dataset

    def class_weights(self, dataset: Dataset) -> NDArray[np.float32]:
        """Weigh (background, foreground, ...) by inverse frequency of their pixels, [1 + foreground classes]."""
        masks = self.prepare(dataset).masks
        return balanced(np.bincount(np.ravel(masks), minlength=1 + len(self.class_names)))  # type: ignore[arg-type]

    def loss(self, logits: Tensor, batch: Batch, weights: Tensor | None = None) -> Tensor:
        """Soft Dice loss of the foreground, overlap counted over the whole batch, plus cross-entropy over pixels.

        Dice per image lets every empty slice answer with a step from 1 to 0 that a few stray pixels decide, and small
        lesions drown in that noise; over the batch an empty slice costs just its false positives. Weights enter the
        cross-entropy only. Source: Milletari et al. 2016 without squares, Isensee et al. 2021 (batch Dice).
        """
        logits, masks = logits.float(), _masks(batch)
        if self._single:
            target = (masks > 0)[:, None].float()
            return _soft_dice(logits.sigmoid(), target) + _binary_cross_entropy(logits, target, weights)
        target = F.one_hot(masks, self.outputs).movedim(-1, 1).float()
        weights = None if weights is None else weights.float()
        cross_entropy = F.cross_entropy(logits, masks, weight=weights)
        return _soft_dice(logits.softmax(dim=1)[:, 1:], target[:, 1:]) + cross_entropy

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid of one logit, softmax over several, in float32. [B, K, H, W] -> [B, K, H, W]."""
        logits = logits.float()
        return logits.sigmoid() if self._single else logits.softmax(dim=1)

    def collect(self, batches: Iterable[tuple[Tensor, Batch]], patients: NDArray[np.str_]) -> Segmented:
        """Reduce batch by batch, so that no map is kept."""
        parts, done = [], 0
        for probabilities, batch in batches:
            parts.append(
                self._reduce(probabilities.detach(), _masks(batch), patients[done : done + len(probabilities)])
            )
            done += len(probabilities)
        if done != len(patients):
            raise ValueError(f"{done} predictions for {len(patients)} patients' names")
        return concatenate(parts)

    def _reduce(self, probabilities: Tensor, masks: Tensor, patients: NDArray[np.str_]) -> Segmented:
        if self._single:
            predicted = (probabilities[:, 0] >= 0.5).long()
            confidence = torch.maximum(probabilities[:, 0], 1 - probabilities[:, 0])
            masks = (masks > 0).long()
            brier = (probabilities[:, 0] - masks).square()
        else:
            confidence, predicted = probabilities.max(dim=1)
            target = F.one_hot(masks, self.outputs).movedim(-1, 1)
            brier = (probabilities - target).square().sum(dim=1)
        brier = brier.double().mean(dim=(1, 2))
        check_finite(brier.cpu().numpy())
        foreground = torch.arange(1, 1 + len(self.class_names), device=masks.device)[:, None, None]
        shown, true = predicted[:, None] == foreground, masks[:, None] == foreground
        return Segmented(
            overlap=_count(shown & true),
            predicted=_count(shown),
            truth=_count(true),
            hd95=_distances(shown.cpu().numpy(), true.cpu().numpy()),
            bins=_bins(confidence.double(), predicted == masks),
            brier=brier.cpu().numpy(),
            patients=patients,
        )


def _masks(batch: Batch) -> Tensor:
    if batch.masks is None:
        raise ValueError("the batch has no masks; Task.prepare() was not called")
    return batch.masks.long()


def _soft_dice(probabilities: Tensor, target: Tensor) -> Tensor:
    """Mean over classes of 1 - (2 Σ p t + s) / (Σ p + Σ t + s); both [B, K, H, W], sums over batch and pixels."""
    overlap = (probabilities * target).sum(dim=(0, 2, 3))
    total = probabilities.sum(dim=(0, 2, 3)) + target.sum(dim=(0, 2, 3))
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def _binary_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return F.binary_cross_entropy_with_logits(logits, target)
    weight = torch.where(target > 0, weights[1].float(), weights[0].float())
    return F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum") / weight.sum()


def _count(masks: Tensor) -> NDArray[np.int64]:
    return np.asarray(masks.sum(dim=(2, 3)).cpu().numpy(), dtype=np.int64)


def _distances(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    pairs = [[hd95(*masks) for masks in zip(*image, strict=True)] for image in zip(predicted, truth, strict=True)]
    return np.array(pairs, dtype=np.float64)


def _bins(confidence: Tensor, right: Tensor) -> NDArray[np.float64]:
    """Per image and confidence bin: pixels, summed confidence, right pixels, [B, 15, 3]."""
    images = len(confidence)
    offset = BINS * torch.arange(images, device=confidence.device)[:, None, None]
    cell = (confidence * BINS).long().clamp_(max=BINS - 1).add_(offset)
    counts = torch.bincount((2 * cell + right).ravel(), minlength=2 * BINS * images).reshape(images, BINS, 2)
    sums = torch.bincount(cell.ravel(), weights=confidence.ravel(), minlength=BINS * images).reshape(images, BINS)
    return np.asarray(torch.stack([counts.sum(dim=-1), sums, counts[:, :, 1]], dim=-1).double().cpu().numpy())
