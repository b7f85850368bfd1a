"""Means over patients with intervals: an image counts as its patient does."""

import numpy as np
from numpy.typing import NDArray

from common.metrics.bootstrap import interval, resample_weights

RESAMPLES = 1000


def over_patients(
    values: NDArray[np.float64], patients: NDArray[np.str_], seed: int
) -> tuple[float, float, float, int]:
    """Give mean, low and high end of its 95 % interval over resampled patients, and how many patients it rests on.

    The mean is over patients of the mean over their images; NaN images do not count, nor patients with no other.

    Shapes: values [N], patients [N].
    """
    per, names = patient_means(values, patients)
    if not len(per):
        return float("nan"), float("nan"), float("nan"), 0
    weights = resample_weights(names, RESAMPLES, seed)
    with np.errstate(invalid="ignore"):
        drawn = np.asarray(weights @ per) / weights.sum(1)
    low, high = interval(drawn)
    return float(per.mean()), low, high, len(per)


def patient_means(
    values: NDArray[np.float64], patients: NDArray[np.str_]
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Average each patient's images that have a value. Shapes: [N], [N] -> [P], names [P]."""
    known = np.isfinite(values)
    names, index = np.unique(patients[known], return_inverse=True)
    sums = np.bincount(index, values[known], minlength=len(names))
    return sums / np.bincount(index, minlength=len(names)), names
