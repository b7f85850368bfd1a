"""Rényi divergence of each mechanism at whole orders, in closed form.

Sources: Mironov 2017 (Gaussian, Laplace); Mironov, Talwar, Zhang 2019, theorems 4 and 5 (sampling); Agarwal, Kairouz,
Liu 2021, theorem 3.5 (Skellam); Kairouz, Liu, Steinke 2021, proposition 14 (sums of discrete Gaussians).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import gammaln, logsumexp

from common.privacy.events import DiscreteGaussian, Gaussian, Laplace, NonPrivate, PoissonSampled, Skellam

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 384, 512)


def gaussian(event: Gaussian, order: int) -> float:
    """α / (2σ²)."""
    return order / (2 * event.noise_multiplier**2)


def laplace(event: Laplace, order: int) -> float:
    """ln(α/(2α−1)·e^((α−1)/b) + (α−1)/(2α−1)·e^(−α/b)) / (α−1)."""
    b = event.noise_multiplier
    up = math.log(order / (2 * order - 1)) + (order - 1) / b
    down = math.log((order - 1) / (2 * order - 1)) - order / b
    return float(np.logaddexp(up, down)) / (order - 1)


def skellam(event: Skellam, order: int) -> float:
    """α·Δ₂²/(2μ) + min(((2α−1)·Δ₂² + 6Δ₁)/(4μ²), 3Δ₁/(2μ)), μ the variance on the integers."""
    square, mu = event.l2**2, event.variance
    rest = min(((2 * order - 1) * square + 6 * event.l1) / (4 * mu**2), 3 * event.l1 / (2 * mu))
    return order * square / (2 * mu) + rest


def discrete_gaussian(event: DiscreteGaussian, order: int) -> float:
    """½ε²α with ε the smaller of √(Δ₂²/(nσ²) + 2τd) and Δ₂/(√n·σ) + τ√d, and τ = 10·Σ e^(−2π²σ²·k/(k+1)), k < n.

    A sum of discrete Gaussians is none; τ says by how little it differs.
    """
    ratio = event.l2 / (math.sqrt(event.shares) * event.sigma)
    tau = 10 * sum(math.exp(-2 * math.pi**2 * event.sigma**2 * k / (k + 1)) for k in range(1, event.shares))
    root = min(math.sqrt(ratio**2 + 2 * tau * event.dimension), ratio + tau * math.sqrt(event.dimension))
    return 0.5 * root**2 * order


DIVERGENCES: dict[type[Any], Callable[[Any, int], float]] = {
    NonPrivate: lambda event, order: math.inf,
    Gaussian: gaussian,
    Laplace: laplace,
    Skellam: skellam,
    DiscreteGaussian: discrete_gaussian,
}


def sampled_divergence(event: PoissonSampled, order: int) -> float:
    """Give ln Σ_k C(α,k)·(1−q)^(α−k)·q^k·e^((k−1)·ε(k)) / (α−1): exact for the Gaussian, a bound for the others.

    Of the two directions in which a patient may come or go this is the larger one, for all noise here is added and
    symmetric: x ↦ Δ − x swaps the law with and without him.
    """
    q = event.sampling_probability
    divergence = DIVERGENCES[type(event.event)]
    if q == 1:
        return divergence(event.event, order)
    k = np.arange(order + 1)
    gained = np.array([0.0, 0.0, *((each - 1) * divergence(event.event, each) for each in range(2, order + 1))])
    terms = _log_binomial(order, k) + (order - k) * math.log1p(-q) + k * math.log(q) + gained
    return float(logsumexp(terms)) / (order - 1)


def _log_binomial(n: int, k: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def rounded_sensitivity(scale: float, clip: float, dimension: int, beta: float = math.exp(-0.5)) -> tuple[float, float]:
    """Give L2 and L1 of a clipped vector after scaling and rounding to integers, conditional on the norm being kept.

    Δ₂² = min((sC + √d)², s²C² + d/4 + √(2·ln 1/β)·(sC + √d/2)); Δ₁ = min(√d·Δ₂, Δ₂²), for the integers of a vector
    are no larger than their squares.

    Source: Kairouz, Liu, Steinke 2021, eq. 18; whoever rounds must draw anew until the norm holds.
    """
    norm, root = scale * clip, math.sqrt(dimension)
    loose = (norm + root) ** 2
    tight = norm**2 + dimension / 4 + math.sqrt(2 * math.log(1 / beta)) * (norm + root / 2)
    l2 = math.sqrt(min(loose, tight))
    return l2, min(root * l2, l2**2)
