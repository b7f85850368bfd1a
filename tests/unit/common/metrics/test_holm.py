"""Holm's steps by hand, and the bootstrap's p against the interval it inverts."""

import numpy as np
import pytest

from common.metrics.bootstrap import interval
from common.metrics.holm import bootstrap_p, holm


def test_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    assert np.isnan(holm(np.array([0.02, np.nan, 0.04]))).tolist() == [False, True, False]
    assert holm(np.array([0.02, np.nan, 0.04]))[[0, 2]] == pytest.approx([0.04, 0.04])
    assert len(holm(np.array([]))) == 0


def test_p_is_below_the_level_where_the_interval_leaves_zero_out() -> None:
    random = np.random.default_rng(0)
    for centre in np.linspace(0, 4, 30):
        drawn = random.normal(centre, 1, 4000)
        low, high = interval(drawn)
        assert (bootstrap_p(drawn) < 0.05) == (low > 0 or high < 0) or abs(bootstrap_p(drawn) - 0.05) < 0.002
    assert bootstrap_p(np.zeros(100)) == 1.0
    assert np.isnan(bootstrap_p(np.full(5, np.nan)))
