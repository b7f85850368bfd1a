"""Is one model's AUROC larger than another's on the same images? Variance without resampling, patients kept whole.

Every positive image i has V_i, the share of negatives that it scores above, and every negative image j the share of
positives that score above it; their means are the area. Of two models the differences D of these components give the
variance of the difference of areas. Components of one patient's images are summed first, for they depend on each other.

Sources: DeLong, DeLong, Clarke-Pearson 1988, "Comparing the areas under two or more correlated ROC curves"; Obuchowski
1997, "Nonparametric analysis of clustered ROC curve data", eq. 4-6: the same where every patient has one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Compared:
    """Difference of two areas, its standard error, and the two-sided p that it is zero; NaN where undefined."""

    difference: float
    error: float
    p: float


def compare_auroc(
    first: Sequence[Floats], second: Sequence[Floats], positive: NDArray[np.bool_], patients: NDArray[np.str_]
) -> Compared:
    """Compare the mean area over seeds of two methods.

    Averaging components over seeds gives the variance over patients for these trained models; what other seeds would
    have given is not in it.

    Args:
        first: Scores of the first method, one array [N] per seed.
        second: Scores of the second method, likewise.
        positive: Which images are positive, [N].
        patients: Whose each image is, [N].
    """
    undefined = Compared(np.nan, np.nan, np.nan)
    if positive.all() or not positive.any():
        return undefined
    components = np.mean([_components(scores, positive) for scores in first], axis=0)
    components -= np.mean([_components(scores, positive) for scores in second], axis=0)
    difference = float(components[positive].mean())
    variance = _clustered_variance(components, positive, patients)
    if not np.isfinite(variance):
        return undefined
    error = float(np.sqrt(max(variance, 0.0)))
    if error == 0:
        return Compared(difference, error, 1.0 if difference == 0 else 0.0)
    return Compared(difference, error, float(2 * norm.sf(abs(difference) / error)))


def _components(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Give V of every image, [N]: the share of the other kind that it is ranked rightly against, ties half."""
    found = np.empty(len(scores))
    for kind, sign in ((positive, 1.0), (~positive, -1.0)):
        others = np.sort(sign * scores[~kind])
        mine = sign * scores[kind]
        below, not_above = np.searchsorted(others, mine, "left"), np.searchsorted(others, mine, "right")
        found[kind] = (below + not_above) / (2 * len(others))
    return found


def _clustered_variance(components: Floats, positive: NDArray[np.bool_], patients: NDArray[np.str_]) -> float:
    _, row = np.unique(patients, return_inverse=True)
    clusters = int(row.max()) + 1
    counts, sums = [], []
    for kind in (positive, ~positive):
        count = np.bincount(row[kind], minlength=clusters).astype(np.float64)
        total = np.bincount(row[kind], weights=components[kind], minlength=clusters)
        counts.append(count)
        sums.append(total - count * components[kind].mean())
    with_kind = [int((count > 0).sum()) for count in counts]
    if min(*with_kind, clusters) < 2:
        return float("nan")
    totals = [count.sum() for count in counts]
    own = [
        have / ((have - 1) * total) * np.square(spread).sum() / total
        for have, total, spread in zip(with_kind, totals, sums, strict=True)
    ]
    both = clusters / (clusters - 1) * float(sums[0] @ sums[1]) / (totals[0] * totals[1])
    return float(own[0] + own[1] + 2 * both)
