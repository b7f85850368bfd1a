"""Intervals by resampling whole patients; the same resamples for every method on a site make comparisons paired."""

import numpy as np
from numpy.typing import NDArray

from common.metrics.base import Weights
from common.seeds import generator

LEVEL = 0.95
DEFINED = 0.8
"""Share of resamples in which the metric must be defined. A class that one single patient holds is missing from 37 % of
them, and its interval would show that patient's images only; two patients are missing from 14 %."""


def resample_weights(patients: NDArray[np.str_], resamples: int, seed: int) -> Weights:
    """Draw as many patients as there are, with replacement, and count every image as often as its patient was drawn.

    Depends on which patients there are, not on the order of the rows: methods judged on the same patients get the same
    resamples. A single patient tells nothing about others: all weights are then zero, hence every value undefined.

    Shapes: patients [N] -> [resamples, N].
    Source: Field and Welsh 2007, the cluster bootstrap; no stratification.
    """
    names, row = np.unique(patients, return_inverse=True)
    if len(names) < 2:
        return np.zeros((resamples, len(patients)))
    drawn = generator(seed, "bootstrap").integers(len(names), size=(resamples, len(names)))
    drawn += np.arange(resamples)[:, None] * len(names)
    counts = np.bincount(drawn.ravel(), minlength=resamples * len(names)).reshape(resamples, len(names))
    return counts.astype(np.float64)[:, row]


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Give the 95 % percentile interval of resampled values [B], NaN left out; (NaN, NaN) if over 20 % are NaN."""
    defined = values[~np.isnan(values)]
    if len(defined) == 0 or len(defined) < DEFINED * len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def over_seeds(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Average over training seeds drawn anew, with replacement, in each resample: covers patients and training at once.

    With S seeds the part of training is too small by (S - 1) / S, the bootstrap's own factor.

    Shapes: values [S, B], all rows under the same patient resamples -> [B].
    """
    seeds, resamples = values.shape
    drawn = rng.integers(seeds, size=(seeds, resamples))
    return np.asarray(np.take_along_axis(values, drawn, axis=0).mean(axis=0))
