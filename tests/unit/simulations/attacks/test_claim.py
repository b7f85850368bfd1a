"""What (ε, δ) allows: against the exact curve of Gaussian noise, by integration, and for randomised answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from common.errors import PrivacyError
from common.privacy.calibration import gaussian_delta
from simulations.attacks.claim import Claim
from simulations.attacks.finding import Finding

EPSILON = st.floats(0, 12)
DELTA = st.floats(0, 0.3)
CHANCE = st.floats(0, 1)


@given(EPSILON, DELTA)
def test_the_area_is_that_below_reach(epsilon, delta):
    claim = Claim(epsilon, delta)
    # Corners of the piecewise linear curve are among the nodes, so the trapezoid rule is exact.
    nodes = np.unique([0, (1 - delta) / (1 + math.exp(epsilon)), 1 - delta, 1])
    heights = np.array([claim.reach(float(node)) for node in nodes])
    assert claim.area == pytest.approx(float(np.sum(np.diff(nodes) * (heights[1:] + heights[:-1]) / 2)), abs=1e-9)


@given(EPSILON, DELTA, CHANCE)
def test_reach_is_at_least_the_chance_and_grows_with_the_claim(epsilon, delta, chance):
    reach = Claim(epsilon, delta).reach(chance)
    assert chance - 1e-9 <= reach <= 1
    assert reach <= Claim(epsilon + 0.1, delta).reach(chance) + 1e-9
    assert reach <= Claim(epsilon, delta + 0.1).reach(chance) + 1e-9


@given(st.floats(0.2, 3), st.floats(0.1, 6), st.floats(1e-3, 1 - 1e-3))
def test_gaussian_noise_stays_below_and_touches_its_claim(mu, epsilon, chance):
    # The best attack on a Gaussian release reaches Φ(Φ⁻¹(α) + μ) (Dong, Roth, Su 2022); its (ε, δ(ε)) is tangent.
    claim = Claim(epsilon, max(0.0, gaussian_delta(epsilon, mu)))
    assert norm.cdf(norm.ppf(chance) + mu) <= claim.reach(chance) + 1e-9
    tangent = float(norm.cdf(-mu / 2 - epsilon / mu))
    assert claim.reach(tangent) == pytest.approx(norm.cdf(norm.ppf(tangent) + mu), abs=1e-6)


def test_randomised_response_reaches_it_exactly():
    # Tells the truth with 3/4: ε = ln 3, and "says in" has chance 1/4 without and 3/4 with.
    claim = Claim(math.log(3), 0)
    assert claim.reach(0.25) == pytest.approx(0.75)
    assert claim.area == pytest.approx(0.75)


@given(st.floats(0, 3), st.floats(0, 0.01), st.floats(0, 1))
def test_swapping_is_one_out_and_one_in(epsilon, delta, chance):
    claim = Claim(epsilon, delta)
    twice = math.exp(epsilon) * (math.exp(epsilon) * chance + delta) + delta
    assert claim.swapped.reach(chance) <= twice + 1e-9
    steep = math.exp(claim.swapped.epsilon) * chance + claim.swapped.delta
    assert steep == pytest.approx(twice)


def test_nothing_claimed_allows_everything():
    assert Claim(math.inf, 0).reach(0.0) == Claim(math.inf, 0).area == math.inf


@pytest.mark.parametrize(("epsilon", "delta"), [(-1, 0), (math.nan, 0), (1, 1), (1, -0.1), (1, math.nan)])
def test_a_claim_that_is_none_is_refused(epsilon, delta):
    with pytest.raises(PrivacyError, match="Allowed are"):
        Claim(epsilon, delta)


@pytest.mark.parametrize(
    ("interval", "bound", "verdict"),
    [
        ((0.2, 0.4), 0.35, "within"),
        ((0.2, 0.4), 0.25, "undecided"),
        ((0.2, 0.4), 0.1, "exceeds"),
        ((0.2, 0.4), math.inf, "no-bound"),
    ],
)
def test_verdicts(interval, bound, verdict):
    finding = Finding("a", "share", 0.3, interval, 0.1, bound, 10, {"x": 1.5})
    assert finding.verdict == finding.row()["verdict"] == verdict
    assert finding.row()["details"] == "x = 1.5"
