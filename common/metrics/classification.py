"""How well a classifier tells classes apart: AUROC, balanced accuracy, sensitivity at a fixed specificity."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from common.metrics import ranking
from common.metrics.additive import Additive, Floats, flat, mean_defined, ratio
from common.metrics.base import Predictions, Weights, classified, targets


class Ranking(ABC):
    """A metric of the order of scores: exact on predictions, from score histograms across sites.

    Several classes or labels: the mean, one against the rest, over those with both kinds of image (in each resample).
    The histogram has 2048 bins (`ranking.score_bins`); scores in one bin count as equal, which on a thousand images
    or more moves the pooled value by less than 0.002 unless many scores are equal or lie within a few bins.
    """

    not_poolable = ""
    resolution = 2e-3
    higher_is_better = True

    @abstractmethod
    def curve(self, scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
        """Judge one column: scores [N], positive [N], weights [B, N] -> [B]."""

    @abstractmethod
    def binned(self, counts: Floats) -> Floats:
        """Judge histograms of negatives and positives, [K, 2, 2048] -> [K]."""

    def value(self, predictions: Predictions, weights: Weights | None = None) -> Floats:
        """Give [1] without weights, [B] with weights [B, N]."""
        rows = classified(predictions)
        counts = np.ones((1, len(rows))) if weights is None else weights
        pairs = zip(rows.probabilities.T, targets(rows).T, strict=True)
        return mean_defined(np.stack([self.curve(scores, positive, counts) for scores, positive in pairs], axis=-1))

    def support(self, predictions: Predictions) -> int:
        """Count the images."""
        return len(predictions)

    def sums(self, predictions: Predictions) -> Floats:
        """Give score histograms per column and kind, flat [K · 2 · 2048]."""
        rows = classified(predictions)
        pairs = zip(rows.probabilities.T, targets(rows).T, strict=True)
        return np.concatenate([ranking.histogram(scores, positive).ravel() for scores, positive in pairs])

    def pooled(self, sums: Floats) -> float:
        """Compute the metric from added histograms."""
        return float(mean_defined(self.binned(sums.reshape(-1, 2, ranking.BINS))))


class Auroc(Ranking):
    """Area under the ROC curve; ties count half."""

    name = "auroc"
    title = "AUROC"

    def curve(self, scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
        """Judge one column."""
        return ranking.auroc(scores, positive, weights)

    def binned(self, counts: Floats) -> Floats:
        """Judge histograms."""
        return ranking.binned_auroc(counts)


class SensitivityAtSpecificity(Ranking):
    """Largest sensitivity that a threshold with a specificity of at least 0.90 reaches.

    The threshold is the best one on the judged images themselves: a point of their ROC curve, not a promise for a
    threshold fixed beforehand.
    """

    name = "sensitivity-at-90-specificity"
    title = "Sensitivity at 90 % specificity"
    specificity = 0.90

    def curve(self, scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
        """Judge one column."""
        return ranking.sensitivity_at(scores, positive, weights, self.specificity)

    def binned(self, counts: Floats) -> Floats:
        """Judge histograms."""
        return ranking.binned_sensitivity_at(counts, self.specificity)


class BalancedAccuracy(Additive):
    """Mean recall of the classes present.

    Binary: threshold 0.5, both classes needed. Multi-class: the most probable class, two classes needed. Multi-label:
    the mean over labels of the binary value, over labels with both kinds.
    """

    name = "balanced-accuracy"
    title = "Balanced accuracy"
    higher_is_better = True

    def statistics(self, predictions: Predictions) -> Floats:
        """Give per image 1, then (right, present) per column and class: [N, 1 + columns · classes · 2]."""
        rows = classified(predictions)
        if rows.labels.ndim == 1 and rows.probabilities.shape[1] > 1:
            present = targets(rows)[:, None, :]
            right = rows.probabilities.argmax(axis=1) == rows.labels
            right = np.broadcast_to(right[:, None, None], present.shape)
        else:
            truth = targets(rows)
            present = np.stack([~truth, truth], axis=-1)
            right = ((rows.probabilities >= 0.5) == truth)[:, :, None]
        cells = np.stack([present & right, present], axis=-1)
        return np.column_stack([np.ones(len(rows)), flat(cells)])

    def finish(self, sums: Floats) -> Floats:
        """Average the recalls; every image is present once per column, which tells how many columns there are."""
        images, cells = sums[:, 0], sums[:, 1:].reshape(len(sums), -1, 2)
        if not images.any():
            return np.full(len(sums), np.nan)
        columns = round(float(cells[:, :, 1].sum() / images.sum()))
        recall = ratio(cells[:, :, 0], cells[:, :, 1]).reshape(len(sums), columns, -1)
        enough = (~np.isnan(recall)).sum(axis=-1) >= 2
        return mean_defined(np.where(enough, mean_defined(recall), np.nan))
