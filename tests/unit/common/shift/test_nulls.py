"""Significance: p uniform when nothing moved; prevalence and sites' own spread no alarm; power when it matters."""

import numpy as np
import pytest
from scipy import stats

from common.errors import DataError
from common.shift.moments import Moments, moments
from common.shift.nulls import (
    Thresholds,
    parametric_test,
    permutation_test,
    thresholds,
    window_statistic,
)
from common.shift.projected import whitening


def test_permutation_p_is_uniform_under_the_null() -> None:
    rng = np.random.default_rng(1)
    found = [
        permutation_test(rng.exponential(size=(12, 4)), rng.exponential(size=(20, 4)), seed, permutations=199).p
        for seed in range(400)
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("noise", [0.0, 0.3], ids=["no noise", "noise as at epsilon 1"])
def test_parametric_p_is_uniform_under_the_null(noise: float) -> None:
    rng = np.random.default_rng(2)
    scales = np.array([0.5, 1.0, 2.0, 0.2, 1.5])
    source = rng.normal(0, scales, (2000, 5))
    whiten = whitening(source, np.arange(2000) % 2)
    found = []
    for seed in range(400):
        sides = []
        for size in (150, 200):
            exact = moments(rng.normal(0, scales, (size, 5)))
            sides.append(Moments(size, exact.mean + rng.normal(0, noise, 5), exact.variance, noise**2))
        found.append(parametric_test(*sides, whiten, seed, draws=500).p)
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_forgetting_the_noise_would_be_noticed() -> None:
    rng = np.random.default_rng(3)
    whiten = whitening(rng.normal(size=(500, 5)), np.arange(500) % 2)
    found = [
        parametric_test(
            *(Moments(150, rng.normal(0, np.sqrt(1 / 150 + 0.09), 5), np.ones(5)) for _ in range(2)), whiten, seed, 500
        ).p
        for seed in range(200)
    ]
    assert stats.kstest(found, "uniform").pvalue < 1e-6


def test_both_tests_find_a_shift() -> None:
    rng = np.random.default_rng(4)
    left, right = rng.normal(size=(60, 4)), rng.normal(0.8, 1, (60, 4))
    whiten = whitening(np.concatenate([left, right]), np.arange(120) % 2)
    assert permutation_test(whiten(left), whiten(right), 1).p == 1 / 1000
    assert parametric_test(moments(left), moments(right), whiten, 1).p < 1e-3


def site(rng: np.random.Generator, size: int, prevalence: float, moved: float = 0.0):
    """Two classes apart in one direction; `moved` shifts both in another."""
    labels = (rng.random(size) < prevalence).astype(np.int64)
    labels[:2] = (0, 1)
    rows = rng.normal(size=(size, 6))
    rows[:, 0] += 2 * labels
    rows[:, 3] += moved
    return rows, labels


def test_a_change_of_prevalence_alone_raises_few_projected_alarms_and_many_marginal_ones() -> None:
    """Prevalence .5 at the source, .15 in the stream: of 300 windows the projected gate may open on 5 %."""
    rng = np.random.default_rng(5)
    source, labels = site(rng, 4000, 0.5)
    opened = {}
    for projected in (True, False):
        whiten = whitening(source, labels, projected)
        pool = np.array([window_statistic(source[rng.integers(4000, size=64)], source, whiten) for _ in range(500)])
        limit = np.quantile(pool, 0.99)
        windows = [site(rng, 64, 0.15)[0] for _ in range(300)]
        opened[projected] = np.mean([window_statistic(rows, source, whiten) > limit for rows in windows])
    print(f"windows with an alarm: projected {opened[True]:.3f}, marginal {opened[False]:.3f}")
    assert opened[True] <= 0.05
    assert opened[False] > 0.9


def test_permuting_within_classes_ignores_prevalence_and_sees_a_shift() -> None:
    rng = np.random.default_rng(6)
    ps, plain, power = [], [], []
    for seed in range(200):
        (left, a), (right, b) = site(rng, 60, 0.7), site(rng, 50, 0.3)
        whiten = whitening(np.concatenate([left, right]), np.concatenate([a, b]))
        strata = np.concatenate([a, b])
        ps.append(permutation_test(whiten(left), whiten(right), seed, strata, 199).p)
        plain.append(permutation_test(left, right, seed, permutations=199).p)
        moved = whiten(right + np.array([0, 0, 0, 1.0, 0, 0]))
        power.append(permutation_test(whiten(left), moved, seed, strata, 199).p)
    assert np.mean(np.array(ps) <= 0.05) < 0.1
    assert np.mean(np.array(plain) <= 0.05) > 0.5
    assert np.mean(np.array(power) <= 0.05) > 0.9


def test_a_site_that_differs_as_sites_do_is_known_heterogeneity() -> None:
    rng = np.random.default_rng(7)
    sites = {str(place): site(rng, 300, 0.5, moved) for place, moved in enumerate((-0.6, -0.2, 0.2, 0.6))}
    limits = thresholds(sites, whitening, window=64, seed=1)
    source = np.concatenate([rows for rows, _ in sites.values()])
    whiten = whitening(source, np.concatenate([labels for _, labels in sites.values()]))
    assert limits.site > 3 * limits.sample

    def verdict(moved: float) -> str:
        return limits.verdict(window_statistic(site(rng, 64, 0.5, moved)[0], source, whiten))

    assert [verdict(moved) for moved in (0.0, 0.6, 3.0)] == ["normal", "heterogeneous", "alarm"]


def test_thresholds_repeat_and_depend_on_no_order_of_the_sites() -> None:
    rng = np.random.default_rng(8)
    sites = {name: site(rng, 80, 0.5) for name in "abc"}
    first = thresholds(sites, whitening, 20, 1, windows=50)
    assert first == thresholds(sites, whitening, 20, 1, windows=50)
    assert first.site == pytest.approx(thresholds(dict(reversed(sites.items())), whitening, 20, 1, windows=50).site)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: permutation_test(np.eye(2), np.eye(2), 1, np.zeros(3, int)), "one stratum each"),
        (lambda: permutation_test(np.eye(2), np.eye(3), 1), "2 and 3 entries"),
        (lambda: thresholds({"a": (np.eye(2), np.arange(2))}, whitening, 5, 1), "1 source sites"),
    ],
)
def test_bad_input_says_what_is_allowed(call, says: str) -> None:
    with pytest.raises(DataError, match=says):
        call()


def test_thresholds_name_the_three_verdicts() -> None:
    limits = Thresholds(1.0, 2.0)
    assert [limits.verdict(value) for value in (1.0, 1.5, 2.0, 2.1)] == [
        "normal",
        "heterogeneous",
        "heterogeneous",
        "alarm",
    ]
