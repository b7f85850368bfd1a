"""Costs against sums over the laws themselves: densities and probabilities, without any accountant."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import norm, skellam

from common.privacy.accountant import cost
from common.privacy.calibration import gaussian_delta
from common.privacy.events import DiscreteGaussian, Gaussian, Laplace, PoissonSampled, Repeated, Skellam
from common.privacy.renyi import DIVERGENCES, sampled_divergence


def renyi(p, q, order):
    """Divergence of two laws given by the logarithms of their probabilities."""
    return float(logsumexp(order * p - (order - 1) * q)) / (order - 1)


def test_gaussians_of_several_noises_are_one_of_their_lengths_together():
    events = [Repeated(Gaussian(5.0), 7), Gaussian(2.0), Repeated(Gaussian(11.0), 30)]
    mu = math.sqrt(7 / 25 + 1 / 4 + 30 / 121)
    exact = brentq(lambda epsilon: gaussian_delta(epsilon, mu) - 1e-6, 0, 50)
    assert cost(events, 1e-6).epsilon == pytest.approx(exact, abs=1e-4)


def test_one_sampled_gaussian_by_integrating_both_hockey_sticks():
    x, step = np.linspace(-20, 20, 400_001, retstep=True)
    without = norm.pdf(x)
    within = 0.9 * without + 0.1 * norm.pdf(x, 1)

    def delta(epsilon):
        sticks = (within - math.exp(epsilon) * without, without - math.exp(epsilon) * within)
        return max(np.maximum(each, 0).sum() * step for each in sticks)

    exact = brentq(lambda epsilon: delta(epsilon) - 1e-5, 1e-6, 20)
    assert cost([PoissonSampled(0.1, Gaussian(1.0))], 1e-5).epsilon == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("removed", [False, True])
def test_twenty_sampled_gaussians_by_convolving_their_losses(removed):
    q, sigma, steps, grid = 0.05, 1.2, 20, 1e-4
    x, step = np.linspace(-20, 21, 1_000_001, retstep=True)
    without = norm.pdf(x, 0, sigma)
    within = (1 - q) * without + q * norm.pdf(x, 1, sigma)
    upper, lower = (within, without) if removed else (without, within)
    weight = upper * step
    places = np.floor(np.log(upper / lower) / grid).astype(int)  # rounded down: the result lies below the truth
    least = places.min()
    law = np.bincount(places - least, weight)
    length = 1 << math.ceil(math.log2(steps * len(law)))
    together = np.fft.irfft(np.fft.rfft(law, length) ** steps, length)
    losses = (np.arange(length) + steps * least) * grid

    def delta(epsilon):
        over = losses > epsilon
        return float((together[over] * -np.expm1(epsilon - losses[over])).sum())

    below = brentq(lambda epsilon: delta(epsilon) - 1e-5, 1e-3, 20)
    found = cost([Repeated(PoissonSampled(q, Gaussian(sigma)), steps)], 1e-5).epsilon
    assert found >= below - 1e-6
    if removed:  # the dearer direction
        assert found == pytest.approx(below, abs=steps * grid)


def test_pure_laplace_noise_adds_up_where_no_chance_is_left():
    assert cost([Repeated(Laplace(4.0), 5)], 1e-12).epsilon == pytest.approx(5 / 4, abs=1e-3)


@pytest.mark.parametrize(("variance", "moved"), [(4.0, 1), (50.0, 3), (400.0, 10)])
@pytest.mark.parametrize("order", [2, 5, 20])
def test_skellam_noise_costs_no_more_than_is_said(variance, moved, order):
    x = np.arange(-1000, 1001)
    with np.errstate(divide="ignore"):
        here, there = (skellam.logpmf(x - by, variance / 2, variance / 2) for by in (0, moved))
    seen = np.isfinite(here) & np.isfinite(there)
    exact = renyi(there[seen], here[seen], order)
    said = DIVERGENCES[Skellam](Skellam(variance, float(moved), float(moved)), order)
    assert exact <= said <= 2.5 * exact


@pytest.mark.parametrize(("sigma", "shares", "moved"), [(0.55, 2, 1), (0.8, 7, 1), (2.0, 4, 2)])
@pytest.mark.parametrize("order", [2, 5, 16])
def test_a_sum_of_discrete_gaussians_costs_no_more_than_is_said(sigma, shares, moved, order):
    x = np.arange(-40, 41)
    one = np.exp(-(x**2) / (2 * sigma**2))
    one /= one.sum()
    law = one
    for _ in range(shares - 1):
        law = np.convolve(law, one)
    there, here = law[:-moved], law[moved:]
    seen = (there > 1e-250) & (here > 1e-250)
    exact = renyi(np.log(there[seen]), np.log(here[seen]), order)
    said = DIVERGENCES[DiscreteGaussian](DiscreteGaussian(sigma, shares, float(moved), 1), order)
    assert exact <= said * (1 + 1e-9)


@pytest.mark.parametrize("order", [2, 4, 8])
def test_sampled_skellam_noise_costs_no_more_than_is_said_in_both_directions(order):
    x, q = np.arange(-120, 121), 0.1
    with np.errstate(divide="ignore"):
        without, moved = (skellam.logpmf(x - by, 12.5, 12.5) for by in (0, 2))
    seen = np.isfinite(without) & np.isfinite(moved)
    without, moved = without[seen], moved[seen]
    within = np.logaddexp(math.log1p(-q) + without, math.log(q) + moved)
    said = sampled_divergence(PoissonSampled(q, Skellam(25.0, 2.0, 2.0)), order)
    assert 0 < renyi(without, within, order) <= renyi(within, without, order) <= said
