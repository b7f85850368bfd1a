"""Intervals: against SciPy's own, a slow twin, and how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from simulations.attacks.intervals import area, rates_at, share


@given(st.integers(0, 300), st.integers(1, 300))
def test_shares_have_the_interval_of_clopper_and_pearson(hits, more):
    of = max(hits, more)
    exact = binomtest(hits, of).proportion_ci(method="exact")
    assert share(hits, of) == pytest.approx((exact.low, exact.high), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40), st.sampled_from([0, 0.1, 0.5]))
def test_rates_are_the_best_of_all_thresholds(pairs, allowed):
    scores, members = np.array([float(each) for each, _ in pairs]), np.array([each for _, each in pairs])
    if members.all() or not members.any():
        return
    tried = [-np.inf, *scores]  # "above t" for every t that changes anything
    fine = [t for t in tried if (scores[~members] > t).sum() <= allowed * (~members).sum() + 1e-9]
    best = max((scores[members] > t).sum() for t in fine)
    rates = rates_at(scores, members, allowed)
    assert (rates.true, rates.members, rates.others) == (best, members.sum(), (~members).sum())
    assert rates.false <= allowed * rates.others + 1e-9


def test_the_false_positive_rate_of_a_chosen_threshold_lies_below_its_limit():
    # Scores of non-members are uniform, so the true rate of the threshold t is 1 − t. Misses are 2.5 % of 2000.
    rng, misses = np.random.default_rng(0), 0
    for _ in range(2000):
        others = rng.random(60)
        rates = rates_at(np.append(others, 2.0), np.append(np.zeros(60, bool), True), 0.05)
        misses += 1 - np.sort(others)[-4] > rates.false_at_most
    assert misses <= 2000 * 0.025 + 4 * (2000 * 0.025 * 0.975) ** 0.5


def test_the_area_is_scikit_learns_and_its_interval_holds_the_truth():
    rng, held = np.random.default_rng(1), 0
    members = np.arange(120) < 60
    for seed in range(100):
        scores = rng.standard_normal(120) + members
        value, (low, high) = area(scores, members, seed)
        assert value == pytest.approx(roc_auc_score(members, scores))
        held += low <= norm.cdf(1 / 2**0.5) <= high
    assert held >= 88  # 95 expected; the bootstrap of so few is a little narrow
