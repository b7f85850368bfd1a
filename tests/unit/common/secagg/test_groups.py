"""Groups are drawn by chance and never small; rules over means are the papers' and stand one bad group of five."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import SecureAggregationError
from common.secagg.groups import combine, draw_groups

RULES = ("mean", "median", "trimmed-mean", "krum")


@given(count=st.integers(3, 60), groups=st.integers(1, 10), fewest=st.integers(3, 8))
def test_groups_divide_the_cohort_and_are_never_small(count, groups, fewest):
    sites = [f"s{number}" for number in range(count)]
    if count // groups < fewest:
        with pytest.raises(SecureAggregationError, check=lambda error: error.refusal == "too-few-sites"):
            draw_groups(sites, groups, fewest)
        return
    found = draw_groups(sites, groups, fewest)
    assert sorted(site for group in found for site in group) == sorted(sites)
    assert len(found) == groups
    assert min(map(len, found)) >= fewest
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_every_pair_of_sites_meets_as_often():
    sites = "abcdef"
    met = Counter()
    for _ in range(3000):
        for group in draw_groups(sites, 2, 3):
            met.update((one, other) for one in group for other in group if one < other)
    assert len(met) == 15
    assert stats.chisquare(list(met.values())).pvalue > 1e-6


def krum(means):
    """Blanchard et al. 2017, as written: the vector whose squared distances to its n − f − 2 nearest are least."""
    n = len(means)
    f = (n - 3) // 2
    scores = []
    for i in range(n):
        far = sorted(float(((means[i] - means[j]) ** 2).sum()) for j in range(n) if j != i)
        scores.append(sum(far[: max(1, n - f - 2)]))
    return means[int(np.argmin(scores))]


@settings(max_examples=50)
@given(groups=st.integers(3, 9), seed=st.integers(0, 2**32 - 1))
def test_rules_are_those_of_the_papers(groups, seed):
    means = np.random.default_rng(seed).normal(size=(groups, 17))
    np.testing.assert_allclose(combine(means, "mean"), sum(means) / groups)
    np.testing.assert_array_equal(combine(means, "median"), np.median(means, axis=0))
    if groups > 3:
        np.testing.assert_array_equal(combine(means, "krum"), krum(means))
    cut = min(max(1, groups // 4), (groups - 1) // 2)
    np.testing.assert_allclose(combine(means, "trimmed-mean"), stats.trim_mean(means, (cut + 1e-9) / groups, axis=0))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_equal_means_stay_and_their_order_says_nothing(rule, groups):
    random = np.random.default_rng(groups)
    same = np.tile(random.normal(size=5), (groups, 1))
    np.testing.assert_allclose(combine(same, rule), same[0])
    means = random.normal(size=(groups, 5))
    found = combine(means[random.permutation(groups)], rule)
    if rule == "krum" and groups == 3:
        # One neighbour counts, and the two nearest are each other's: a tie, which the order decides.
        assert (np.linalg.norm(means - found, axis=1) == 0).any()
        return
    np.testing.assert_allclose(found, combine(means, rule))


@pytest.mark.parametrize("size", [1e3, 1e6, -1e6])
def test_one_bad_group_of_five_sways_the_mean_and_no_other_rule(size):
    means = np.random.default_rng(3).normal(size=(5, 50))
    bad = means.copy()
    bad[2] = size
    good = np.delete(means, 2, axis=0)
    for rule in RULES[1:]:
        found = combine(bad, rule)
        assert (found >= good.min(axis=0)).all()
        assert (found <= good.max(axis=0)).all()
    assert np.abs(combine(bad, "mean")).min() > 100
