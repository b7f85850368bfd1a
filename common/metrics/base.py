"""What a metric is: exact on predictions, weighted for the bootstrap and, where it can, a sum across sites."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
"""[B, N]: how often each image counts in each of B resamples."""


@dataclass(frozen=True, slots=True)
class Classified:
    """Predictions of a classifier on one site.

    Shapes: probabilities float64 [N, K] (binary: K = 1, the positive class's); labels int64 [N] or uint8 [N, K]
    (multi-label); patients str [N]. Rows are finite.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64] | NDArray[np.uint8]
    patients: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True, slots=True)
class Segmented:
    """Predictions of a segmenter on one site, reduced per image so that no map is kept.

    Shapes: overlap, predicted, truth int64 [N, K] pixel counts per foreground class; hd95 float64 [N, K] in pixels, NaN
    where either mask is empty; bins float64 [N, 15, 3] (pixels, summed confidence, correct pixels) of the top class's
    confidence, for calibration; brier float64 [N]; patients str [N].
    """

    overlap: NDArray[np.int64]
    predicted: NDArray[np.int64]
    truth: NDArray[np.int64]
    hd95: NDArray[np.float64]
    bins: NDArray[np.float64]
    brier: NDArray[np.float64]
    patients: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.overlap)


Predictions = Classified | Segmented
Kind = TypeVar("Kind", bound=Predictions)


def take(predictions: Kind, index: NDArray[np.integer] | NDArray[np.bool_]) -> Kind:
    """Take the images at `index`, in that order."""
    return type(predictions)(*(getattr(predictions, field.name)[index] for field in fields(predictions)))


def concatenate(parts: Sequence[Kind]) -> Kind:
    """Put the predictions of several sites (of one task) one after the other."""
    kind = type(parts[0])
    columns = [np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(kind)]
    return kind(*columns)


def targets(predictions: Classified) -> NDArray[np.bool_]:
    """Say per column of the probabilities which images are positive, [N, K]."""
    if predictions.labels.ndim == 2:
        return predictions.labels.astype(np.bool_)
    columns = np.arange(predictions.probabilities.shape[1])
    return np.asarray(predictions.labels[:, None] == (columns if len(columns) > 1 else 1), dtype=np.bool_)


def classified(predictions: Predictions) -> Classified:
    """Narrow to a classifier's predictions; a task lists only metrics that fit what it predicts."""
    if not isinstance(predictions, Classified):
        raise TypeError("this metric judges classification; the predictions are of a segmentation")
    return predictions


def segmented(predictions: Predictions) -> Segmented:
    """Narrow to a segmenter's predictions; a task lists only metrics that fit what it predicts."""
    if not isinstance(predictions, Segmented):
        raise TypeError("this metric judges segmentation; the predictions are of a classification")
    return predictions


class Metric(Protocol):
    """Contract of every metric.

    `value(predictions)` is the metric on these images; `value(predictions, weights)` gives one value per row of
    weights. NaN says that it is undefined (one class only, no foreground), never an exception.
    `support` counts what the value rests on (images; for segmentation, images with foreground).
    `not_poolable` says why the metric cannot come from added per-site sums; empty if it can. `resolution` is the most
    by which `pooled` may then differ from `value` on the concatenated predictions (0 where sums are exact).
    """

    name: str
    title: str
    higher_is_better: bool
    not_poolable: str
    resolution: float

    def value(self, predictions: Predictions, weights: Weights | None = None) -> NDArray[np.float64]:
        """Give [1] without weights, [B] with weights [B, N]."""
        ...

    def support(self, predictions: Predictions) -> int:
        """Count the images that the value rests on."""
        ...

    def sums(self, predictions: Predictions) -> NDArray[np.float64]:
        """Give a flat vector of fixed length that adds across sites (empty where not poolable)."""
        ...

    def pooled(self, sums: NDArray[np.float64]) -> float:
        """Compute the metric from added sums; NaN where undefined or not poolable."""
        ...
