"""What a site adds to a sum stays in its bounds, and cutting to them brings no two sums farther apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.contribution import saturate
from common.errors import SecureAggregationError
from common.randomness import SecureRandom
from common.secagg.layout import Layout, Segment

LAYOUT = Layout((Segment("update", 4, 1.5), Segment("release", 2, 10.0)), 32, 3)
ENTRIES = st.lists(st.floats(-1e9, 1e9), min_size=6, max_size=6)


def arrays(entries):
    return {"update": np.array(entries[:4]), "release": np.array(entries[4:])}


def test_what_reaches_too_far_is_cut_and_the_rest_stays():
    found = arrays([-3.0, 0.5, 7.0, 1.5, -11.0, 9.0])
    with pytest.raises(SecureAggregationError):
        LAYOUT.encode(found, SecureRandom())
    saturate(found, LAYOUT)
    np.testing.assert_array_equal(found["update"], [-1.5, 0.5, 1.5, 1.5])
    np.testing.assert_array_equal(found["release"], [-10.0, 9.0])
    LAYOUT.encode(found, SecureRandom())


@settings(max_examples=200)
@given(ENTRIES, ENTRIES)
def test_two_sums_come_no_farther_apart(left, right):
    one, other = arrays(left), arrays(right)
    before = {name: np.linalg.norm(one[name] - other[name]) for name in one}
    saturate(one, LAYOUT)
    saturate(other, LAYOUT)
    for name, distance in before.items():
        assert np.linalg.norm(one[name] - other[name]) <= distance * (1 + 1e-12)
