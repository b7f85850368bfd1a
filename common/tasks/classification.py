"""Classification of whole images: one finding, one of several classes, or several findings at once."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from common.config import TaskSection
from common.data.base import Batch, Dataset
from common.errors import ConfigError, DataError, nearest
from common.metrics.base import Classified
from common.tasks.base import check_finite
from common.tasks.targets import align, balanced, findings, indices

METRICS = ("auroc", "balanced-accuracy", "sensitivity-at-90-specificity", "ece", "brier")


class Binary:
    """One logit: is the image positive? `task.positive` names the positive classes; empty takes the second of two."""

    metrics = METRICS
    dense = False
    outputs = 1

    def __init__(self, settings: TaskSection, classes: tuple[str, ...], mask_classes: tuple[str, ...]) -> None:
        self.positive = _positive(settings.positive, classes)
        self._original = classes
        name = "+".join(self.positive)
        rest = [label for label in classes if label not in self.positive]
        self._prepared = (rest[0] if len(rest) == 1 else f"not {name}", name)
        self.class_names = (name,)

    def prepare(self, dataset: Dataset) -> Dataset:
        """Turn labels into 0 and 1; findings of a multi-label data set into whether any positive one is present.

        Raises:
            DataError: There are no labels, or classes that the task does not know.
            ConfigError: Every class counts as positive, and each image has one.
        """
        single = dataset.labels is not None and dataset.labels.ndim == 1
        if single and dataset.classes == self._prepared:
            return dataset
        if single and len(self.positive) == len(self._original):
            raise ConfigError(
                f"setting 'task.positive' names every class ({', '.join(self._original)}). Leave out at least one."
            )
        dataset = align(dataset, self._original)
        place = [self._original.index(name) for name in self.positive]
        labels = np.asarray(findings(dataset)[:, place].any(axis=1), dtype=np.int64)
        return replace(dataset, labels=labels, classes=self._prepared)

    def class_weights(self, dataset: Dataset) -> NDArray[np.float32]:
        """Weigh (negative, positive), [2], by inverse frequency."""
        return balanced(np.bincount(indices(self.prepare(dataset)), minlength=2))

    def loss(self, logits: Tensor, batch: Batch, weights: Tensor | None = None) -> Tensor:
        """Binary cross-entropy; with weights [2] the mean is weighted by the classes'."""
        return _binary_loss(logits, _labels(batch)[:, None], weights)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid in float64, so that very sure images keep their order. [B, 1] -> [B, 1]."""
        return logits.double().sigmoid()

    def collect(self, batches: Iterable[tuple[Tensor, Batch]], patients: NDArray[np.str_]) -> Classified:
        """Put probabilities and labels of all batches together."""
        return _collect(batches, patients)


class Multiclass:
    """One logit per class, exactly one class per image."""

    metrics = METRICS
    dense = False

    def __init__(self, settings: TaskSection, classes: tuple[str, ...], mask_classes: tuple[str, ...]) -> None:
        if len(classes) < 2:
            raise ConfigError(
                f"task multiclass: the data set has {len(classes)} classes ({', '.join(classes) or 'none named'}). "
                f"Needed are at least two; check `data.label` and `data.classes`."
            )
        self.class_names = classes
        self.outputs = len(classes)

    def prepare(self, dataset: Dataset) -> Dataset:
        """Bring class indices into the task's order.

        Raises:
            DataError: There are no labels, several per image, or classes that the task does not know.
        """
        dataset = align(dataset, self.class_names)
        indices(dataset)
        return dataset

    def class_weights(self, dataset: Dataset) -> NDArray[np.float32]:
        """Weigh classes, [K], by inverse frequency."""
        return balanced(np.bincount(indices(self.prepare(dataset)), minlength=self.outputs))

    def loss(self, logits: Tensor, batch: Batch, weights: Tensor | None = None) -> Tensor:
        """Cross-entropy; with weights [K] the mean is weighted by the classes'."""
        weights = None if weights is None else weights.float()
        return F.cross_entropy(logits.float(), _labels(batch).long(), weight=weights)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax in float64. [B, K] -> [B, K]."""
        return logits.double().softmax(dim=1)

    def collect(self, batches: Iterable[tuple[Tensor, Batch]], patients: NDArray[np.str_]) -> Classified:
        """Put probabilities and labels of all batches together."""
        return _collect(batches, patients)


class Multilabel:
    """One logit per finding, any number of findings per image."""

    metrics = METRICS
    dense = False

    def __init__(self, settings: TaskSection, classes: tuple[str, ...], mask_classes: tuple[str, ...]) -> None:
        if not classes:
            raise ConfigError("task multilabel: the data set names no finding. Needed is one; check `data.label`.")
        self.class_names = classes
        self.outputs = len(classes)

    def prepare(self, dataset: Dataset) -> Dataset:
        """Bring the columns of findings into the task's order.

        Raises:
            DataError: There are no labels, one class per image, or findings are missing or not known.
        """
        dataset = align(dataset, self.class_names)
        if dataset.labels is None or dataset.labels.ndim != 2:
            raise DataError(
                f"{dataset.name}: labels are one class per image. Task multilabel needs one column of 0 and 1 per "
                f"finding; set `task.name` to multiclass or binary, or another `data.label`."
            )
        return dataset

    def class_weights(self, dataset: Dataset) -> NDArray[np.float32]:
        """Weigh (absent, present) of each finding, [L, 2], by inverse frequency; mean one within each finding."""
        present = findings(self.prepare(dataset)).sum(axis=0)
        return np.stack([balanced(np.array([len(dataset) - count, count])) for count in present])

    def loss(self, logits: Tensor, batch: Batch, weights: Tensor | None = None) -> Tensor:
        """Binary cross-entropy, averaged over images and findings, with weights [L, 2] weighted within each finding."""
        return _binary_loss(logits, _labels(batch), weights)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid in float64, so that very sure images keep their order. [B, L] -> [B, L]."""
        return logits.double().sigmoid()

    def collect(self, batches: Iterable[tuple[Tensor, Batch]], patients: NDArray[np.str_]) -> Classified:
        """Put probabilities and labels of all batches together."""
        return _collect(batches, patients)


def _positive(setting: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in setting.split(",") if name.strip()))
    known = ", ".join(classes)
    if not classes:
        raise ConfigError(
            "task binary: the data set has no labels. Needed are classes; check `data.label`, or set `task.name` to "
            "segmentation."
        )
    if not names and len(classes) == 2:
        return (classes[1],)
    if not names:
        raise ConfigError(
            f"setting 'task.positive' is empty and the data set has {len(classes)} classes ({known}). Empty is allowed "
            f"with exactly two; name the positive ones, separated by commas."
        )
    for name in names:
        if name not in classes:
            raise ConfigError(
                f"setting 'task.positive' names {name!r}, which is no class.{nearest(name, list(classes))} "
                f"Classes: {known}. Take some of these."
            )
    return names


def _labels(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise ValueError("the batch has no labels; Task.prepare() was not called")
    return batch.labels


def _binary_loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of each column's (weighted) mean: logits, labels [B, L]; weights [2] or [L, 2]."""
    if weights is None:
        return F.binary_cross_entropy_with_logits(logits.float(), labels.float())
    loss = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
    pairs = weights.float().reshape(-1, 2)
    weight = torch.where(labels > 0, pairs[:, 1], pairs[:, 0])
    return ((loss * weight).sum(dim=0) / weight.sum(dim=0)).mean()


def _collect(batches: Iterable[tuple[Tensor, Batch]], patients: NDArray[np.str_]) -> Classified:
    parts = [(probabilities.double().cpu(), _labels(batch).cpu()) for probabilities, batch in batches]
    probabilities = torch.cat([part[0] for part in parts]).numpy()
    labels = torch.cat([part[1] for part in parts]).numpy()
    check_finite(probabilities)
    if len(labels) != len(patients):
        raise ValueError(f"{len(labels)} predictions for {len(patients)} patients' names")
    return Classified(probabilities=probabilities, labels=labels, patients=patients)
