"""The relation of distance and drop: SciPy and enumeration as oracles, p uniform enough when there is none."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from common.errors import DataError
from common.shift.dyads import Dyad, relate, spearman


def dyads(rng: np.random.Generator, count: int, extra: int = 0) -> tuple[list[Dyad], np.ndarray]:
    names = [f"s{place}" for place in range(count)]
    targets = names + [f"t{place}" for place in range(extra)]
    found = [Dyad(a, b, float(rng.normal())) for a in names for b in targets if a != b]
    return found, rng.normal(size=len(found))


def test_spearman_is_scipys() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(5, size=30).astype(float), rng.normal(size=30)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_a_perfect_line_is_found_and_predicts_the_site_left_out() -> None:
    pairs, x = dyads(np.random.default_rng(2), 4, extra=1)
    pairs = [Dyad(pair.source, pair.target, 3 * value + 1) for pair, value in zip(pairs, x, strict=True)]
    found = relate(pairs, x)
    assert (found.spearman, found.low, found.high) == pytest.approx((1, 1, 1))
    assert found.slope == pytest.approx(3)
    assert found.rmse == pytest.approx(0, abs=1e-9)
    assert found.rmse_null > 0.5
    assert found.p == pytest.approx(1 / 24), "no smaller p exists with four sites"
    assert found.dyads == 16


def test_p_is_that_of_every_relabelling() -> None:
    """Oracle: matrices permuted by rows and columns together."""
    pairs, x = dyads(np.random.default_rng(3), 4)
    distance, drop = np.full((4, 4), np.nan), np.full((4, 4), np.nan)
    for pair, value in zip(pairs, x, strict=True):
        place = int(pair.source[1]), int(pair.target[1])
        distance[place], drop[place] = value, pair.drop
    off = ~np.eye(4, dtype=bool)

    def rho(order) -> float:
        return stats.spearmanr(distance[np.ix_(order, order)][off], drop[off]).statistic

    observed = rho(range(4))
    expected = np.mean([rho(order) >= observed - 1e-12 for order in permutations(range(4))])
    assert relate(pairs, x).p == pytest.approx(expected)


def test_p_is_valid_where_there_is_no_relation() -> None:
    rng = np.random.default_rng(4)
    found = [relate(*dyads(rng, 4)).p for _ in range(200)]
    assert np.mean(np.array(found) <= 0.1) <= 0.1 + 3 * np.sqrt(0.09 / 200)


def test_many_sites_draw_relabellings() -> None:
    pairs, x = dyads(np.random.default_rng(5), 7)
    pairs = [Dyad(pair.source, pair.target, value) for pair, value in zip(pairs, x, strict=True)]
    assert relate(pairs, x).p == pytest.approx(1 / 1000, abs=1e-3)


def test_two_training_sites_have_no_p_and_a_constant_no_rank() -> None:
    pairs, x = dyads(np.random.default_rng(6), 2, extra=2)
    assert np.isnan(relate(pairs, x).p)
    assert np.isnan(relate(pairs, np.ones(len(pairs))).spearman)


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 2.0, float("nan"), 1.0, 1.0, 1.0]])
def test_bad_input_says_what_is_allowed(values) -> None:
    with pytest.raises(DataError, match="at least 3 pairs"):
        relate(dyads(np.random.default_rng(7), 3)[0], values)
