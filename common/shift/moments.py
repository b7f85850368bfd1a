"""Mean and spread of a site's patients, and squared distances of means that sampling and noise do not inflate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.attention.prior import Prior
from common.errors import DataError

Vectors = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Mean over patients, unbiased variance between patients, and the variance of the noise added to each mean's entry.

    Shapes: mean, variance float64 [d]. `noise` is 0 where nothing was added.
    """

    patients: int
    mean: Vectors
    variance: Vectors
    noise: float = 0.0

    @property
    def bias(self) -> float:
        """What the error of this mean adds to a squared distance, in expectation: Σ v / n + d σ²."""
        return float(self.variance.sum()) / self.patients + len(self.mean) * self.noise


def moments(rows: Vectors, noise: float = 0.0) -> Moments:
    """Take the moments of one vector per patient.

    Shapes: rows [P, d], P ≥ 2: one patient has no variance.

    Raises:
        DataError: Fewer than two patients, or values that are not finite.
    """
    checked = check_rows(rows)
    return Moments(len(checked), checked.mean(0), checked.var(0, ddof=1), noise)


def moments_of(prior: Prior, noise: float = 0.0) -> Moments:
    """Read a pooled prior, whose variance divides by n, as moments, whose variance divides by n - 1.

    Raises:
        DataError: The prior is that of one patient.
    """
    if prior.patients < 2:
        raise DataError("a prior of 1 patient has no variance between patients. At least 2 are needed; pool more.")
    return Moments(prior.patients, prior.mean, prior.variance * prior.patients / (prior.patients - 1), noise)


def check_rows(rows: Vectors) -> Vectors:
    """Give the rows as float64 [P, d].

    Raises:
        DataError: Another shape, fewer than two patients, or values that are not finite.
    """
    found = np.asarray(rows, np.float64)
    if found.ndim != 2 or len(found) < 2:
        raise DataError(
            f"patients' vectors have shape {found.shape}. A comparison needs [patients, entries] with at least 2 "
            f"patients; give a site with more, or leave it out."
        )
    if not np.isfinite(found).all():
        raise DataError("patients' vectors hold values that are not finite. Only finite ones compare; measure again.")
    return found


def squared_distance(left: Moments, right: Moments) -> float:
    """Estimate ‖μ_i − μ_j‖² without bias; may be negative, which a test needs and a display cuts at 0.

    E‖m_i − m_j‖² = ‖μ_i − μ_j‖² + Σ v_i / n_i + Σ v_j / n_j + d (σ_i² + σ_j²), and the last three are subtracted.

    Raises:
        DataError: The two have other lengths.
    """
    check_length(left.mean, right.mean)
    return float(((left.mean - right.mean) ** 2).sum()) - left.bias - right.bias


def check_length(left: Vectors, right: Vectors) -> None:
    """Refuse vectors of two lengths.

    Raises:
        DataError: The last axes differ.
    """
    if left.shape[-1:] != right.shape[-1:]:
        raise DataError(
            f"vectors of {left.shape[-1]} and {right.shape[-1]} entries meet. Only those of one schema compare; "
            f"measure both with the same model."
        )
