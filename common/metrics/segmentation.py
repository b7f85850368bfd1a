"""How well predicted masks fit: Dice and the 95 % Hausdorff distance, per image and foreground class."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from common.metrics.additive import Additive, Floats, flat, mean_defined, ratio
from common.metrics.base import Predictions, segmented


def hd95(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Give the 95 % Hausdorff distance in pixels: the larger of both directions' 95th percentiles; NaN if one is empty.

    Distances run between edge pixels (4-neighbourhood; pixels on the image's border are edge).
    Shapes: prediction, truth [H, W] -> a number from 0.
    Source: Huttenlocher et al. 1993, the ranked Hausdorff distance, rank 95 %.
    """
    if not (prediction.any() and truth.any()):
        return float("nan")
    shown, true = _edge(prediction), _edge(truth)
    return max(_directed(shown, true), _directed(true, shown))


class Dice(Additive):
    """2 |P ∩ T| / (|P| + |T|) per image and class, averaged over images whose truth has that class, then over classes.

    An image without lesion says nothing here, however much was predicted in it; the Brier score sees it.
    """

    name = "dice"
    title = "Dice"
    higher_is_better = True

    def support(self, predictions: Predictions) -> int:
        """Count the images with foreground."""
        return int((segmented(predictions).truth > 0).any(axis=1).sum())

    def statistics(self, predictions: Predictions) -> Floats:
        """Give (Dice, 1) per image and class with truth, else zeros: [N, K · 2]."""
        rows = segmented(predictions)
        dice = ratio(2 * rows.overlap.astype(np.float64), (rows.predicted + rows.truth).astype(np.float64))
        return _mean_rows(np.where(rows.truth > 0, dice, np.nan))

    def finish(self, sums: Floats) -> Floats:
        """Average over images, then over classes."""
        return _mean_of(sums)


class Hd95(Additive):
    """95 % Hausdorff distance in pixels, averaged over images where truth and prediction have the class, then classes.

    A missed lesion has no distance: read it beside Dice, which counts it as 0, and beside its own support.
    """

    name = "hd95"
    title = "HD95 (pixels)"
    higher_is_better = False

    def support(self, predictions: Predictions) -> int:
        """Count the images with a distance."""
        return int((~np.isnan(segmented(predictions).hd95)).any(axis=1).sum())

    def statistics(self, predictions: Predictions) -> Floats:
        """Give (distance, 1) per image and class where defined, else zeros: [N, K · 2]."""
        return _mean_rows(segmented(predictions).hd95)

    def finish(self, sums: Floats) -> Floats:
        """Average over images, then over classes."""
        return _mean_of(sums)


def _mean_rows(values: Floats) -> Floats:
    defined = ~np.isnan(values)
    return flat(np.stack([np.where(defined, values, 0.0), defined], axis=-1))


def _mean_of(sums: Floats) -> Floats:
    cells = sums.reshape(len(sums), -1, 2)
    return mean_defined(ratio(cells[:, :, 0], cells[:, :, 1]))


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Give row and column of each edge pixel, [E, 2]; slices, for a generic erosion costs fifty times as much."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inside)


def _directed(start: NDArray[np.int64], goal: NDArray[np.int64]) -> float:
    nearest, _ = cKDTree(goal, compact_nodes=False, balanced_tree=False).query(start)
    return float(np.percentile(nearest, 95))
