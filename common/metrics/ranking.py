"""What the order of scores says: area under the ROC curve and points on it, weighted, and from histograms."""

import numpy as np
from numpy.typing import NDArray

from common.metrics.additive import Floats, ratio

BINS = 2048
CELLS = 1 << 22  # weights handled at once: 32 MiB of float64


def auroc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Chance that a positive scores above a negative, ties counting half.

    Shapes: scores [N], positive [N], weights [B, N] -> [B], NaN where one kind has no weight.
    Source: Hanley and McNeil 1982, the Mann-Whitney form.
    """
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    below = np.searchsorted(scores[negatives], scores[positive], side="left")
    not_above = np.searchsorted(scores[negatives], scores[positive], side="right")
    areas = np.empty(len(weights))
    for rows in _chunks(weights):
        of_positives = weights[rows][:, positive]
        running = np.zeros((len(of_positives), len(negatives) + 1))
        np.cumsum(weights[rows][:, negatives], axis=1, out=running[:, 1:])
        wins = np.einsum("bp,bp->b", of_positives, running[:, below])
        wins += np.einsum("bp,bp->b", of_positives, running[:, not_above])
        areas[rows] = ratio(wins / 2, of_positives.sum(axis=1) * running[:, -1])
    return areas


def sensitivity_at(scores: Floats, positive: NDArray[np.bool_], weights: Floats, specificity: float) -> Floats:
    """Largest sensitivity of a threshold "score >= t" whose specificity is at least the given one.

    Shapes: scores [N], positive [N], weights [B, N] -> [B], NaN where one kind has no weight.
    """
    if len(scores) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    ends = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # equal scores share one threshold
    hit = positive[order]
    best = np.empty(len(weights))
    for rows in _chunks(weights):
        ordered = weights[rows][:, order]
        true = np.cumsum(ordered * hit, axis=1)
        false = np.cumsum(ordered * ~hit, axis=1)
        positives, negatives = true[:, -1], false[:, -1]
        allowed = false[:, ends] <= ((1 - specificity) * negatives * (1 + 1e-9))[:, None]
        reached = np.max(true[:, ends], axis=1, where=allowed, initial=0.0)
        best[rows] = ratio(np.where(negatives > 0, reached, np.nan), positives)
    return best


def score_bins(probabilities: Floats) -> NDArray[np.int64]:
    """Put each probability into one of 2048 bins that keep their order.

    Bins are equally wide in asinh(logit / 2): about 0.01 logit near 0.5, about 1 % of the logit far out, so that
    neither an undecided nor an over-confident model collapses into few bins. Logits beyond ±90 share the end bins.
    """
    with np.errstate(divide="ignore"):
        logit = np.log(probabilities) - np.log1p(-probabilities)
    place = np.arcsinh(logit / 2) / np.arcsinh(45.0)
    return np.asarray(np.clip((place + 1) * (BINS / 2), 0, BINS - 1), dtype=np.int64)


def histogram(probabilities: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Count negatives and positives per score bin, [2, 2048]."""
    place = score_bins(probabilities) + BINS * positive
    return np.bincount(place, minlength=2 * BINS).astype(np.float64).reshape(2, BINS)


def binned_auroc(counts: Floats) -> Floats:
    """Area under the ROC curve of histograms [K, 2, 2048] -> [K]: the counts are the weights of their bins."""
    scores, positive = np.tile(np.arange(BINS, dtype=np.float64), 2), np.repeat([False, True], BINS)
    return auroc(scores, positive, counts.reshape(len(counts), -1))


def binned_sensitivity_at(counts: Floats, specificity: float) -> Floats:
    """Sensitivity at a specificity from histograms [K, 2, 2048] -> [K]; linear inside the bin that passes the limit."""
    false, true = np.moveaxis(np.cumsum(counts[:, :, ::-1], axis=-1), 1, 0)
    limit = (1 - specificity) * false[:, -1]
    passing = np.argmax(false > limit[:, None] * (1 + 1e-9), axis=-1)
    row = np.arange(len(counts))
    before = passing - 1
    false_before, true_before = (np.where(passing > 0, sums[row, before], 0.0) for sums in (false, true))
    share = ratio(limit - false_before, false[row, passing] - false_before)
    return ratio(true_before + share * (true[row, passing] - true_before), true[:, -1])


def _chunks(weights: Floats) -> list[slice]:
    size = max(1, CELLS // max(1, weights.shape[1]))
    return [slice(start, start + size) for start in range(0, len(weights), size)]
