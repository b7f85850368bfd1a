"""Whether probabilities mean what they say: expected calibration error, Brier score, reliability curve.

Bins are 15 of equal *width*: equal-mass bins depend on the data, so that theirs could not be added across sites.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.metrics.additive import Additive, Floats, flat, ratio
from common.metrics.base import Classified, Predictions, Segmented, targets

BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability curve, each [15]: bin centres, mean confidence and observed frequency (NaN if empty), count."""

    centre: Floats
    confidence: Floats
    frequency: Floats
    count: Floats


def bin_index(confidence: Floats) -> NDArray[np.int64]:
    """Give the bin, 0 to 14, of each confidence in [0, 1]; the last one includes 1."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def bin_counts(predictions: Predictions) -> Floats:
    """Give per image, column and bin (count, summed confidence, summed outcome), [N, columns, 15, 3].

    Binary and each label of multi-label: confidence is P(y = 1), outcome y. Multi-class: confidence is the largest
    probability, outcome whether that class is right. Segmentation: the same, counted over pixels.
    """
    if isinstance(predictions, Segmented):
        return predictions.bins[:, None]
    confidence, outcome = _confidence(predictions)
    row, column = np.indices(confidence.shape)
    counts = np.zeros((*confidence.shape, BINS, 3))
    counts[row, column, bin_index(confidence)] = np.stack([np.ones_like(confidence), confidence, outcome], axis=-1)
    return counts


def reliability(predictions: Predictions) -> Reliability:
    """Compute the reliability curve, all labels of a multi-label task together."""
    count, confidence, outcome = np.moveaxis(bin_counts(predictions).sum(axis=(0, 1)), -1, 0)
    centre = (np.arange(BINS) + 0.5) / BINS
    return Reliability(centre=centre, confidence=ratio(confidence, count), frequency=ratio(outcome, count), count=count)


class ExpectedCalibrationError(Additive):
    """Σ_b (n_b / n) |frequency_b - confidence_b| over 15 bins of equal width; the mean over labels for multi-label.

    What counts as confidence: see `bin_counts`. Biased upwards on few images. Source: Naeini et al. 2015.
    """

    name = "ece"
    title = "Expected calibration error"
    higher_is_better = False

    def statistics(self, predictions: Predictions) -> Floats:
        """Give the bins of each image, [N, columns · 15 · 3]."""
        return flat(bin_counts(predictions))

    def finish(self, sums: Floats) -> Floats:
        """Weigh each bin's gap by its count; n_b cancels against the means' denominators."""
        count, confidence, outcome = np.moveaxis(sums.reshape(len(sums), -1, BINS, 3), -1, 0)
        gap = np.abs(outcome - confidence).sum(axis=-1)
        return np.asarray(ratio(gap, count.sum(axis=-1)).mean(axis=-1))


class Brier(Additive):
    """Mean squared distance between probability and outcome.

    Binary: (p - y)², in [0, 1]. Multi-label: its mean over labels. Multi-class: summed over classes, in [0, 2].
    Segmentation: per pixel, averaged over each image's pixels, then over images. Source: Brier 1950.
    """

    name = "brier"
    title = "Brier score"
    higher_is_better = False

    def statistics(self, predictions: Predictions) -> Floats:
        """Give (score, 1) per image, [N, 2]."""
        return np.column_stack([_brier(predictions), np.ones(len(predictions))])

    def finish(self, sums: Floats) -> Floats:
        """Divide by the number of images."""
        return ratio(sums[:, 0], sums[:, 1])


def _confidence(predictions: Classified) -> tuple[Floats, Floats]:
    probabilities = predictions.probabilities
    if predictions.labels.ndim == 1 and probabilities.shape[1] > 1:
        right = probabilities.argmax(axis=1) == predictions.labels
        return probabilities.max(axis=1)[:, None], right[:, None].astype(np.float64)
    return probabilities, targets(predictions).astype(np.float64)


def _brier(predictions: Predictions) -> Floats:
    if isinstance(predictions, Segmented):
        return predictions.brier
    squares = (predictions.probabilities - targets(predictions)) ** 2
    exclusive = predictions.labels.ndim == 1
    return np.asarray(squares.sum(axis=1) if exclusive else squares.mean(axis=1))
