"""The server tests the one thing that a sum still shows of its parts: no mean is longer than the longest of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contribution import UPDATE, WEIGHT, bounded
from common.errors import AggregationError
from common.messages import TrainRequest
from server.pooled import Pooler
from tests.federations import small_config

BOUND = 10.0
REQUEST = TrainRequest(round=1, arrays={})
POOLER = Pooler(
    small_config(secure_aggregation__enabled=True, secure_aggregation__update_bound=BOUND), None, None, None
)


@given(
    sites=st.integers(3, 9),
    size=st.floats(1e-3, 1e4),
    seed=st.integers(0, 2**32 - 1),
)
def test_honest_sites_never_exceed_it(sites, size, seed):
    random = np.random.default_rng(seed)
    updates = [bounded(size * random.normal(size=20), BOUND) for _ in range(sites)]
    weights = random.integers(1, 100, sites)
    assert all(np.linalg.norm(update) <= BOUND * (1 + 1e-12) for update in updates)
    total = sum(weight * update for weight, update in zip(weights, updates, strict=True))
    found = POOLER._mean({UPDATE: total, WEIGHT: np.array([weights.sum()])}, tuple("s" * sites), REQUEST)
    assert np.linalg.norm(found) <= BOUND * (1 + 1e-9)


def test_a_short_update_is_left_alone_and_a_long_one_keeps_its_direction():
    short, long = np.array([3.0, 4.0]), np.array([30.0, 40.0])
    assert bounded(short, BOUND) is short
    np.testing.assert_allclose(bounded(long, BOUND), [6.0, 8.0])
    assert np.isnan(bounded(np.array([np.nan, 1.0]), BOUND)).any()  # refused where it is laid out


@pytest.mark.parametrize(
    ("total", "weight"), [([40.0, 0.0], 3.0), ([np.nan, 0.0], 3.0), ([np.inf, 0.0], 3.0), ([1.0, 0.0], 0.0)]
)
def test_a_sum_that_no_honest_sites_can_make_is_refused(total, weight):
    with pytest.raises(AggregationError):
        POOLER._mean({UPDATE: np.array(total), WEIGHT: np.array([weight])}, ("a", "b", "c"), REQUEST)


def test_a_site_that_hides_below_the_bound_is_not_found():
    # What the documentation says it forbids the server to see: one of three sends thrice what it may.
    total = np.array([3 * BOUND - 1e-6, 0.0])
    POOLER._mean({UPDATE: total, WEIGHT: np.array([3.0])}, ("a", "b", "c"), REQUEST)
