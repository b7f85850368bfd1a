"""What a data set offers as target, brought into the form and the class order that a task wants."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.data.base import Dataset
from common.errors import DataError


def align(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """Give the data set with labels in the order of `classes`, by name: another archive may list them otherwise.

    Raises:
        DataError: No labels; a class that is not among `classes`; a finding (column) that is missing.
    """
    if dataset.labels is None:
        raise DataError(
            f"{dataset.name}: there are no labels. Classification needs them; check `data.label` or set `task.name` to "
            f"segmentation."
        )
    if dataset.classes == classes:
        return dataset
    strange = [name for name in dataset.classes if name not in classes]
    missing = [name for name in classes if name not in dataset.classes and dataset.labels.ndim == 2]
    if strange or missing:
        raise DataError(
            f"{dataset.name}: classes are {', '.join(dataset.classes)}; the task was built for {', '.join(classes)}. "
            f"Both must name the same; restrict or rename them (`data.classes`)."
        )
    if dataset.labels.ndim == 2:
        order = [dataset.classes.index(name) for name in classes]
        return replace(dataset, labels=dataset.labels[:, order], classes=classes)
    place = np.array([classes.index(name) for name in dataset.classes], dtype=np.int64)
    return replace(dataset, labels=place[dataset.labels], classes=classes)


def indices(dataset: Dataset) -> NDArray[np.int64]:
    """Give the class index per image [N].

    Raises:
        DataError: The data set has several labels per image.
    """
    if dataset.labels is None or dataset.labels.ndim != 1:
        raise DataError(
            f"{dataset.name}: images carry several labels each. Task multiclass needs one class per image; set "
            f"`task.name` to multilabel, or to binary with `task.positive`."
        )
    return dataset.labels.astype(np.int64)


def findings(dataset: Dataset) -> NDArray[np.bool_]:
    """Give which classes each image has, [N, K], from class indices or from columns."""
    labels = dataset.labels
    if labels is None:
        raise ValueError("no labels; align() comes first")
    if labels.ndim == 2:
        return labels.astype(np.bool_)
    return np.asarray(labels[:, None] == np.arange(len(dataset.classes)), dtype=np.bool_)


def balanced(counts: NDArray[np.integer]) -> NDArray[np.float32]:
    """Weigh classes by inverse count, mean one over the classes present; an absent class gets the neutral weight 1."""
    present = counts > 0
    weights = np.ones(len(counts))
    if present.any():
        inverse = 1.0 / counts[present]
        weights[present] = inverse / inverse.mean()
    return weights.astype(np.float32)
