"""What is noted about each image: three kinds of label from the same lesions, with reading errors."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.data.phantom_lesions import KINDS, Lesions
from common.errors import ConfigError, nearest

Labels = NDArray[np.int64] | NDArray[np.uint8]

FINDINGS = tuple(kind.name for kind in KINDS)


def lesion(lesions: Lesions) -> NDArray[np.int64]:
    """Give [N]: 1 where any lesion is in the slice."""
    return np.asarray((lesions.kind >= 0).any(axis=1), np.int64)


def kind(lesions: Lesions) -> NDArray[np.int64]:
    """Give [N]: 0 for none, else 1 + the kind of the largest lesion in the slice."""
    largest = np.argmax(np.where(lesions.kind >= 0, lesions.radius, -1), axis=1)
    return np.asarray(1 + lesions.kind[np.arange(len(largest)), largest], np.int64)


def findings(lesions: Lesions) -> NDArray[np.uint8]:
    """Give [N, kinds]: which kinds are in the slice."""
    return np.asarray((lesions.kind[..., None] == np.arange(len(KINDS))).any(axis=1), np.uint8)


LABELS: dict[str, tuple[Callable[[Lesions], Labels], tuple[str, ...]]] = {
    "lesion": (lesion, ("no lesion", "lesion")),
    "kind": (kind, ("none", *FINDINGS)),
    "findings": (findings, FINDINGS),
}


def labels_named(name: str) -> tuple[Callable[[Lesions], Labels], tuple[str, ...]]:
    """Find a kind of label and its classes; auto is lesion.

    Raises:
        ConfigError: There is no such kind.
    """
    known = {"auto": LABELS["lesion"], **LABELS}
    if name not in known:
        raise ConfigError(
            f"setting 'data.label' is {name!r} for the phantom.{nearest(name, list(known))} Allowed: "
            f"{', '.join(known)}. Choose one of these."
        )
    return known[name]


def misread(labels: Labels, rate: float, classes: int, rng: np.random.Generator) -> Labels:
    """Change each label with probability `rate`: class indices to any other class, findings to their opposite."""
    wrong = rng.random(labels.shape) < rate
    if labels.dtype == np.uint8:
        return labels ^ wrong.astype(np.uint8)
    return np.where(wrong, (labels + rng.integers(1, classes, labels.shape)) % classes, labels)


def joined(labels: list[Labels]) -> Labels:
    """Put the labels of several sites, all of one kind, one after another."""
    if labels[0].dtype == np.uint8:
        return np.concatenate(labels, dtype=np.uint8)
    return np.concatenate(labels, dtype=np.int64)
