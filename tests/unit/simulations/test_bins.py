"""Merged bins lose nothing, hold enough and are few; the interval of a share is SciPy's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from simulations.report.bins import ENOUGH, FEWEST, PARTS, merged, wilson

COUNTS = st.lists(st.integers(1, 400), min_size=1, max_size=15)


def table(counts: list[int]) -> list[dict[str, float]]:
    return [
        {"bin": index, "count": count, "confidence": (index + 0.5) / 15, "observed": (index % 4) / 3}
        for index, count in enumerate(counts)
    ]


@given(COUNTS)
def test_merging_loses_nothing_and_leaves_no_thin_bin(counts: list[int]):
    rows, bins = table(counts), merged(table(counts))
    assert 1 <= len(bins) <= (PARTS if sum(counts) <= PARTS * ENOUGH else len(rows))
    assert sum(one.count for one in bins) == sum(counts)
    for key in ("confidence", "observed"):
        whole = sum(row["count"] * row[key] for row in rows)
        assert sum(one.count * getattr(one, key) for one in bins) == pytest.approx(whole)
    assert all(one.count >= FEWEST for one in bins) or len(bins) == 1
    said = [one.confidence for one in bins]
    assert said == sorted(said)


@given(COUNTS)
def test_the_order_of_rows_does_not_matter(counts: list[int]):
    assert merged(table(counts)[::-1]) == merged(table(counts))


def test_a_heap_at_one_end_does_not_swallow_the_rest():
    assert [one.count for one in merged(table([5000, 40, 40, 40, 40, 40]))] == [5000, 40, 40, 40, 40, 40]
    assert [one.count for one in merged(table([5000, *[4] * 14]))] == [5000, 12, 12, 12, 20]


def test_bins_that_hold_enough_stand_alone():
    counts = [ENOUGH + index for index in range(15)]
    assert [one.count for one in merged(table(counts))] == counts


def test_nothing_makes_no_bin():
    assert merged([]) == []


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_scipys(case: tuple[int, int]):
    hits, count = case
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-6)
