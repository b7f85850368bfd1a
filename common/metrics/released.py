"""Metrics that may be released with noise: per patient a short row of norm at most one, from whose noisy sum they come.

Scores of a classifier are counted in 16 groups of the pooled histogram's bins for each kind of image, from which
AUROC and the accuracy at one half follow; a segmenter's Dice is a sum and a count. Other metrics are not released:
their rows are long, and noise on each entry would drown them.
"""

import numpy as np

from common.metrics.additive import Floats
from common.metrics.base import Classified, Predictions, Segmented, targets
from common.metrics.ranking import BINS, score_bins

GROUPS = 16


def released_length(task: str, outputs: int) -> int:
    """Entries of a release: 32 for each output of a classifier, 2 for each class of a segmenter; multi-class none."""
    if task == "segmentation":
        return 2 * max(1, outputs - 1 if outputs > 1 else 1)
    return 0 if task == "multiclass" else 2 * GROUPS * outputs


def released_rows(predictions: Predictions) -> Floats:
    """Give each patient's row, the mean over his images, of norm at most one. [N images] -> [P, length]."""
    if isinstance(predictions, Segmented):
        rows = _overlaps(predictions)
    else:
        rows = _histograms(predictions)
    _, patient = np.unique(predictions.patients, return_inverse=True)
    sums = np.zeros((patient.max(initial=-1) + 1, rows.shape[1]))
    np.add.at(sums, patient, rows)
    return sums / np.bincount(patient)[:, None] if len(sums) else sums


def read_release(task: str, total: Floats) -> dict[str, float]:
    """Compute what a noisy sum says; what it cannot say is left out."""
    if task == "segmentation":
        dice, count = total.reshape(-1, 2).sum(0)
        return {"dice": float(np.clip(dice / count, 0, 1))} if count > 1 else {}
    columns = total.reshape(-1, 2, GROUPS).clip(min=0)
    areas = [_area(column) for column in columns]
    found = {"auroc": float(np.mean(areas))} if areas and not np.isnan(areas).any() else {}
    halves = columns[:, :, GROUPS // 2 :].sum(2), columns.sum(2)
    if (halves[1] > 1).all():
        negative, positive = 1 - halves[0][:, 0] / halves[1][:, 0], halves[0][:, 1] / halves[1][:, 1]
        found["balanced-accuracy"] = float(((negative + positive) / 2).mean())
    return found


def _histograms(predictions: Classified) -> Floats:
    truth = targets(predictions)
    count, columns = predictions.probabilities.shape
    if predictions.labels.ndim == 1 and columns > 1:
        return np.zeros((count, 0))
    group = score_bins(predictions.probabilities) * GROUPS // BINS
    rows = np.zeros((count, columns, 2, GROUPS))
    image, column = np.indices((count, columns))
    rows[image, column, truth.astype(np.int64), group] = 1 / np.sqrt(columns)
    return rows.reshape(count, -1)


def _overlaps(predictions: Segmented) -> Floats:
    present = predictions.truth > 0
    both = (predictions.predicted + predictions.truth).clip(min=1)
    dice = np.where(present, 2 * predictions.overlap / both, 0.0)
    rows = np.stack([dice, present.astype(np.float64)], axis=-1) / np.sqrt(2 * present.shape[1])
    return np.asarray(rows.reshape(len(rows), -1))


def _area(column: Floats) -> float:
    """AUROC of scores in groups, ties counting half. [2, GROUPS], negatives first."""
    negative, positive = column
    below = np.cumsum(negative) - negative
    pairs = negative.sum() * positive.sum()
    return float(((below + negative / 2) * positive).sum() / pairs) if pairs > 0 else float("nan")
