"""Several comparisons at once: p values that keep the chance of any false finding below the level."""

import numpy as np
from numpy.typing import NDArray


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust p values [M] step by step, the smallest times M, the next times M − 1, never falling; NaN stays and is
    not counted.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors)) if len(order) else []
    return adjusted


def bootstrap_p(differences: NDArray[np.float64]) -> float:
    """Give the two-sided p that a difference is zero from its resamples [B]: twice the smaller tail, one added to both.

    NaN where no resample is defined. Source: Davison and Hinkley 1997, "Bootstrap Methods and their Application", 4.2,
    inverted from the percentile interval.
    """
    known = differences[~np.isnan(differences)]
    if not len(known):
        return float("nan")
    tail = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(known) + 1)))
