"""One release of a site's signature: class counts, class means and class variances in one noisy vector.

A patient p of class y with mean signature s_p gives v = (s_p − s₀)·min(1, C/‖s_p − s₀‖), s₀ public, and
U_p = onehot(y) ⊗ [v ; v∘v/C ; C]. Since ‖v∘v‖ ≤ ‖v‖² ≤ C², a patient who comes or goes moves the sum by at most √3·C,
in any number of classes, for he touches the slot of one class only.

Source: ours (the class-routed second moment); Gaussian mechanism of Dwork and Roth 2014, appendix A.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.attention.prior import Prior
from common.errors import AggregationError, DataError

Floats = NDArray[np.float64]
LEAST_VARIANCE = 1e-6
SURE = 20.0
"""A class of fewer noisy patients than 20 standard deviations of the noise of its count is pooled with the others."""


def sensitivity(clip: float) -> float:
    """The most that one patient moves a release, in L2: √3·C."""
    return math.sqrt(3) * clip


def routed(means: Floats, classes: NDArray[np.int64], count: int, reference: Floats, clip: float) -> Floats:
    """Sum the patients' contributions, without noise.

    A patient whose mean is not finite counts as one at the reference: an error would tell of him, at no price.

    Args:
        means: Each patient's mean signature.
        classes: Each patient's class, 0 to count − 1.
        count: Number of classes, at least one.
        reference: The public centre s₀: the last released mean, or that of a model that saw no patient.
        clip: C, the farthest that a patient counts.

    Shapes: means [P, d], classes [P], reference [d] -> [count · (2d + 1)].

    Raises:
        DataError: Shapes do not fit, or a class is unknown.
    """
    if means.ndim != 2 or means.shape[1:] != reference.shape or classes.shape != means.shape[:1]:
        raise DataError(
            f"signatures of shape {means.shape} come with {classes.shape} classes and a reference of shape "
            f"{reference.shape}. Allowed are [P, d], [P] and [d]; measure them with one schema."
        )
    if classes.size and not 0 <= classes.min() <= classes.max() < count:
        raise DataError(f"a patient has class {classes.max()}; allowed are 0 to {count - 1}. Check `data.classes`.")
    away = np.where(np.isfinite(means).all(axis=1, keepdims=True), means, reference) - reference
    near = away * np.minimum(1.0, clip / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-300))
    rows = np.concatenate([near, near**2 / clip, np.full((len(near), 1), clip)], axis=1)
    total = np.zeros((count, rows.shape[1]))
    np.add.at(total, classes, rows)
    return total.reshape(-1)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """What a noisy sum says: per class the number of patients, and their signatures' mean and variance.

    Shapes: patients [K]; mean, variance [K, d].
    """

    patients: Floats
    mean: Floats
    variance: Floats


def opened(total: Floats, count: int, reference: Floats, clip: float, noise: float) -> Opened:
    """Read a noisy sum of `routed` vectors. Nothing is divided by a count that has no noise.

    Args:
        total: The sum over sites.
        count: Number of classes.
        reference: s₀, the same as every site's.
        clip: C.
        noise: Standard deviation of the noise on each entry of `total`.

    Classes with fewer noisy patients than 20 standard deviations of their count share the moments of all.

    Shapes: total [count · (2d + 1)], reference [d].

    Raises:
        AggregationError: Fewer noisy patients in all than twice their noise: nothing can be read.
    """
    d = len(reference)
    rows = total.reshape(count, 2 * d + 1)
    patients = rows[:, -1] / clip
    spread = noise / clip
    if patients.sum() <= max(2 * spread * math.sqrt(count), 0.5):
        raise AggregationError(
            f"the released signatures hold {patients.sum():.0f} patients beside noise of "
            f"{spread * math.sqrt(count):.0f}. Let more patients take part, or lower "
            f"`privacy.signature-noise-multiplier`."
        )
    sure = patients >= max(SURE * spread, 0.5)
    together = _moments(rows.sum(axis=0), patients.sum(), reference, clip)
    each = [
        _moments(row, n, reference, clip) if able else together
        for row, n, able in zip(rows, patients, sure, strict=True)
    ]
    return Opened(patients.clip(min=0), np.stack([mean for mean, _ in each]), np.stack([var for _, var in each]))


def pooled_prior(total: Floats, count: int, reference: Floats, clip: float, schema: str) -> Prior:
    """Give the prior of all classes together.

    Raises:
        AggregationError: Not one patient, noise included.
    """
    row = total.reshape(count, 2 * len(reference) + 1).sum(axis=0)
    patients = row[-1] / clip
    if patients < 1:
        raise AggregationError(
            "the released signatures hold no patient beside their noise. Let more patients take part, or set "
            "`privacy.signature-noise-multiplier` lower."
        )
    mean, variance = _moments(row, patients, reference, clip)
    return Prior(schema, round(patients), mean, variance)


def may_be_shown(noise: float, length: int, patients: float, typical_distance: float) -> bool:
    """Tell whether one site's vector says more than its noise: 2·noise·√d/n ≤ half the usual distance between sites.

    Args:
        noise: Standard deviation of the noise on each entry of the site's sum.
        length: d, entries of a signature.
        patients: n, the site's noisy number of patients.
        typical_distance: Median of the distances of one site from the rest so far.

    Otherwise only scalars of that site are of use, and only they are shown.
    """
    return patients > 0 and 2 * noise * math.sqrt(length) / patients <= 0.5 * typical_distance


def _moments(row: Floats, patients: float, reference: Floats, clip: float) -> tuple[Floats, Floats]:
    d = len(reference)
    shift = row[:d] / patients
    variance = clip * row[d : 2 * d] / patients - shift**2
    return reference + shift, np.maximum(LEAST_VARIANCE, variance)
