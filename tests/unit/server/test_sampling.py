"""The cohort: as many as said, each site equally often, whatever order the sites come in."""

import math
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.sampling import draw_cohort

names = st.lists(st.text(min_size=1, max_size=4), unique=True, min_size=1, max_size=12)


@settings(max_examples=60)
@given(names, st.integers(1, 100), st.integers(0, 2**40), st.integers(1, 1000), st.randoms())
def test_sorted_distinct_and_as_many_as_said(sites, percent, seed, round_, random):
    drawn = draw_cohort(sites, percent / 100, seed, round_)
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(sites)
    assert len(drawn) == max(1, math.ceil(Fraction(percent, 100) * len(sites)))
    mixed = list(sites)
    random.shuffle(mixed)
    assert draw_cohort(mixed, percent / 100, seed, round_) == drawn


def test_everybody_when_the_fraction_is_one():
    assert draw_cohort(["c", "a", "b"], 1.0, 7, 1) == ["a", "b", "c"]


def test_nobody_when_there_is_nobody():
    assert draw_cohort([], 1.0, 7, 1) == []


def test_round_and_seed_count():
    sites = [f"s{index}" for index in range(20)]
    draws = {tuple(draw_cohort(sites, 0.25, seed, round_)) for seed in range(4) for round_ in range(1, 5)}
    assert len(draws) == 16


@pytest.mark.parametrize("fraction", [0.1, 0.4, 0.6])
def test_each_pair_of_sites_is_equally_often_together(fraction):
    """3,000 rounds of k of 5 sites: a site is in with k/5, a pair with k(k-1)/20; within 5 standard errors."""
    sites, rounds = ["a", "b", "c", "d", "e"], 3000
    cohorts = [set(draw_cohort(sites, fraction, 3, round_)) for round_ in range(1, rounds + 1)]
    size = math.ceil(fraction * 5)

    def check(group, expected):
        share = sum(set(group) <= cohort for cohort in cohorts) / rounds
        assert abs(share - expected) <= 5 * math.sqrt(expected * (1 - expected) / rounds)

    for site in sites:
        check([site], size / 5)
    for pair in combinations(sites, 2):
        check(pair, size * (size - 1) / 20)
