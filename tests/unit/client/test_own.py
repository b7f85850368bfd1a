"""The table of a site's own arrays, and the model that follows from it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from client.own import COPY, MIXED, WEIGHT, own_arrays, own_parts, under
from tests.federations import same_arrays

GLOBAL = {
    "body": np.array([1.0, 2.0], np.float32),
    "norm": np.array([3.0], np.float32),
    "steps": np.array(4, np.int64),
}


def test_an_empty_table_gives_the_global_arrays():
    assert same_arrays(own_arrays(GLOBAL, {}), GLOBAL)


def test_parts_stand_in_the_place_of_global_ones():
    own = {"norm": np.array([9.0], np.float32)}
    assert same_arrays(own_arrays(GLOBAL, own), {**GLOBAL, **own})


def test_a_copy_stands_before_parts_and_is_no_part():
    table = {"norm": np.array([9.0], np.float32), **under(COPY, {"norm": np.array([8.0], np.float32)})}
    assert own_arrays(GLOBAL, table)["norm"] == 8
    assert own_parts(table)["norm"] == 9
    assert set(own_parts(table)) == {"norm"}


def test_what_is_mixed_is_mixed_with_the_sites_own_part():
    table = {
        "norm": np.array([10.0], np.float32),
        **under(MIXED, {"norm": np.array([20.0], np.float32), "body": np.array([5.0, 6.0], np.float32)}),
        WEIGHT: np.array(0.25),
    }
    found = own_arrays(GLOBAL, table)
    assert found["norm"] == 0.25 * 20 + 0.75 * 10
    np.testing.assert_array_equal(found["body"], [0.25 * 5 + 0.75 * 1, 0.25 * 6 + 0.75 * 2])
    assert list(found) == list(GLOBAL)
    assert all(found[name].dtype == array.dtype for name, array in GLOBAL.items())


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2))
def test_the_ends_of_a_mixture_are_exact(values):
    own = np.array(values, np.float32)
    for weight, expected in ((0.0, GLOBAL["body"]), (1.0, own)):
        found = own_arrays(GLOBAL, {**under(MIXED, {"body": own}), WEIGHT: np.array(weight)})
        np.testing.assert_array_equal(found["body"], expected)
