"""Shares of noise: what is certain to be in an opened sum is what is priced, whoever drops out or colludes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.config import load_run_config
from common.contribution import RELEASE, UPDATE, grids
from common.errors import PrivacyError
from common.privacy.events import DiscreteGaussian, Skellam
from common.privacy.plan import added
from common.privacy.shares import Grid
from common.randomness import SecureRandom
from common.secagg.layout import Layout, Segment
from tests.secure_sums import params

RANDOM = SecureRandom()
CLIP = 0.5


def config(mechanism="skellam", colluders=1):
    return load_run_config(
        {
            "privacy.mechanism": mechanism,
            "privacy.placement": "distributed",
            "privacy.clip-norm": CLIP,
            "secure-aggregation.enabled": True,
            "secure-aggregation.colluders": colluders,
        }
    )


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("alive", [3, 5])
def test_shares_of_the_certain_make_the_priced_noise_and_more_make_more(mechanism, alive):
    grid = Grid(scale=40.0, clip=CLIP, dimension=20_000, honest=3)
    total = sum(grid.share(mechanism, 1.3, RANDOM) for _ in range(alive))
    assert total.dtype == np.int64
    assert total.var() == pytest.approx(grid.variance(1.3) * alive / 3, rel=0.06)
    assert abs(total.mean()) < 5 * (total.var() / len(total)) ** 0.5


def test_a_sum_of_skellam_shares_is_skellam_of_all_their_variance():
    grid = Grid(scale=1.0, clip=1.0, dimension=40_000, honest=4)
    total = sum(grid.share("skellam", 0.01, RANDOM) for _ in range(4))  # l2 is some 200, so σ·l2 is two
    law = stats.skellam(grid.variance(0.01) / 2, grid.variance(0.01) / 2)
    middle = np.arange(-4, 5)
    seen = np.array([(total == value).sum() for value in middle])
    expected = law.pmf(middle) * len(total)
    rest = len(total) - seen.sum(), len(total) - expected.sum()
    chi = stats.chisquare([*seen, rest[0]], [*expected, rest[1]])
    assert chi.pvalue > 1e-6


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), length=st.integers(1, 60), clip=st.floats(0.01, 1.0), scale=st.floats(1.0, 500.0)
)
def test_rounded_sums_of_neighbours_lie_within_the_sensitivities(seed, length, clip, scale):
    """One patient more, rounded by the same draws.

    Whatever noise makes of two sums that lie so near for every draw, it makes of the two laws over all draws: a
    divergence of mixtures is at most the mixture of divergences.
    """
    random = np.random.default_rng(seed)
    layout = Layout((Segment("update", length, 50.0, finest=scale),), 32, 3)
    grid = Grid(layout.scale(layout.segments[0]), clip, length, 2)
    without = random.normal(size=length)
    patient = random.normal(size=length)
    patient *= clip / np.linalg.norm(patient)
    ends = [
        layout.encode({"update": each}, SecureRandom(bytes(32))).view(np.int32).astype(int)
        for each in (without, without + patient)
    ]
    moved = ends[1] - ends[0]
    assert np.linalg.norm(moved) <= grid.l2
    assert np.abs(moved).sum() <= grid.l1


@pytest.mark.parametrize("sites", range(3, 25))
@pytest.mark.parametrize("colluders", [0, 1, 3])
@pytest.mark.parametrize("signed", [False, True])
def test_no_sum_is_opened_with_fewer_honest_sites_than_the_noise_is_sized_for(sites, colluders, signed):
    if sites - colluders < 2 or colluders > sites - 3:
        pytest.skip("no such sum is allowed")
    terms = params([f"s{number}" for number in range(sites)], colluders=colluders, signed=signed)
    layout = Layout((Segment(UPDATE, 4, 50.0), Segment(RELEASE, 4, 50.0)), 32, sites)
    for grid in grids(config(colluders=colluders), layout).values():
        assert terms.least - colluders >= grid.honest >= 1


@pytest.mark.parametrize(("mechanism", "kind"), [("skellam", Skellam), ("discrete-gaussian", DiscreteGaussian)])
def test_what_is_priced_is_what_is_drawn(mechanism, kind):
    layout = Layout((Segment(UPDATE, 4, 50.0),), 32, 6)
    made = config(mechanism)
    grid = grids(made, layout)[UPDATE]
    event = added(made.privacy, 1.1, grid)
    assert isinstance(event, kind)
    if mechanism == "skellam":
        assert (event.variance, event.l2, event.l1) == (grid.variance(1.1), grid.l2, grid.l1)
    else:
        assert event == DiscreteGaussian(grid.share_deviation(1.1), grid.honest, grid.l2, 4)
    assert grid.honest == 4 - 1  # of six sites four open a sum, and one may collude


def test_noise_that_nobody_is_certain_to_add_is_refused():
    with pytest.raises(PrivacyError, match="0 honest sites"):
        Grid(1.0, 1.0, 4, 0)
