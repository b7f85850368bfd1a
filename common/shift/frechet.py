"""ADD-F and the Fréchet distance of features: distance of two Gaussians with the sites' means and variances."""

import numpy as np
from scipy import linalg

from common.shift.moments import Moments, Vectors, check_length, check_rows


def add_f(left: Moments, right: Moments) -> float:
    """ADD-F = (‖m_i − m_j‖² + Σ (√v_i − √v_j)²)^½: the 2-Wasserstein distance of Gaussians with diagonal covariances.

    A metric on (mean, variance); unbounded. A full covariance needs d² numbers and is not released.

    Source: Dowson and Landau 1982, eq. 4, for diagonal covariances.
    """
    check_length(left.mean, right.mean)
    spread = np.sqrt(left.variance) - np.sqrt(right.variance)
    return float(np.sqrt(((left.mean - right.mean) ** 2).sum() + (spread**2).sum()))


def frechet(left: Vectors, right: Vectors) -> float:
    """Fréchet distance of two sets of features, full covariance: the baseline that ADD is judged against.

    d² = ‖m_i − m_j‖² + tr(S_i + S_j − 2 (S_i^½ S_j S_i^½)^½). Needs the rows, so it is for simulations.

    Shapes: [P, d], [Q, d].
    Source: Dowson and Landau 1982, eq. 4; as a predictor of accuracy, Deng and Zheng 2021.
    """
    first, second = check_rows(left), check_rows(right)
    check_length(first, second)
    root = _root(_covariance(first))
    cross = linalg.eigvalsh(root @ _covariance(second) @ root).clip(min=0)
    traces = first.var(0, ddof=1).sum() + second.var(0, ddof=1).sum()
    gap = ((first.mean(0) - second.mean(0)) ** 2).sum()
    return float(np.sqrt(max(0.0, gap + traces - 2 * np.sqrt(cross).sum())))


def _covariance(rows: Vectors) -> Vectors:
    return np.atleast_2d(np.cov(rows, rowvar=False))


def _root(matrix: Vectors) -> Vectors:
    values, vectors = linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(values.clip(min=0))) @ vectors.T)
