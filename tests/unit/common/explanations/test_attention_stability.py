"""How far maps stayed where they were: by hand, at the ends, and alike under a common change."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from common.errors import DataError
from common.explanations.attention_stability import MEASURES, attention_stability


def maps(seed, count=5, side=10):
    return np.random.default_rng(seed).random((count, side, side))


def test_nothing_moved_is_one_and_no_common_cell_is_none():
    one = maps(0)
    for values in attention_stability(one, one * 7).values():
        np.testing.assert_allclose(values, 1.0)
    left, right = np.zeros((2, 1, 10, 10))
    left[0, 0, 0] = right[0, 9, 9] = 1.0
    found = attention_stability(left, right)
    assert found["as_js"][0] == pytest.approx(0.0, abs=1e-12)
    assert found["as_com"][0] == pytest.approx(0.0, abs=1e-12)


def test_the_divergence_is_scipys():
    a, b = maps(1), maps(2)
    flat = [each.reshape(5, -1) / each.sum(axis=(1, 2))[:, None] for each in (a, b)]
    expected = [1 - jensenshannon(left, right, base=2) ** 2 for left, right in zip(*flat, strict=True)]
    np.testing.assert_allclose(attention_stability(a, b)["as_js"], expected)


def test_top_cells_and_centre_by_hand():
    # Ten of a hundred cells: rows 0 and 1 of a 10 × 10 map, half of each shared.
    before, after = np.full((2, 1, 10, 10), 1e-9)
    before[0, 0, :] = 1.0
    after[0, 0, :5] = after[0, 1, :5] = 1.0
    found = attention_stability(before, after)
    assert found["as_top"][0] == pytest.approx(5 / 15)
    # Centres (0, 4.5) and (0.5, 2): √(0.25 + 6.25) of a diagonal of 9√2.
    assert found["as_com"][0] == pytest.approx(1 - 6.5**0.5 / (9 * 2**0.5), abs=1e-6)


def test_it_is_symmetric_and_between_none_and_one():
    forth, back = attention_stability(maps(3), maps(4)), attention_stability(maps(4), maps(3))
    for name in MEASURES:
        np.testing.assert_allclose(forth[name], back[name])
        assert ((forth[name] >= (-1 if name == "as_rho" else 0)) & (forth[name] <= 1)).all()


def test_ranks_of_cells_turned_round_and_flat_maps():
    ramp = 1.0 + np.arange(100.0).reshape(1, 10, 10)
    flat = np.ones((1, 10, 10))
    assert attention_stability(ramp, ramp**3)["as_rho"][0] == pytest.approx(1.0)
    assert attention_stability(ramp, 101 - ramp + 1)["as_rho"][0] == pytest.approx(-1.0)
    assert attention_stability(flat, flat)["as_rho"][0] == 1.0
    assert attention_stability(flat, ramp)["as_rho"][0] == 0.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.ones((2, 4, 4)), np.ones((3, 4, 4))),
        (np.ones((4, 4)), np.ones((4, 4))),
        (np.ones((1, 4, 4)), np.zeros((1, 4, 4))),
        (np.ones((1, 4, 4)), -np.ones((1, 4, 4))),
        (np.ones((1, 4, 4)), np.full((1, 4, 4), np.nan)),
    ],
)
def test_what_is_no_map_is_refused(before, after):
    with pytest.raises(DataError, match=r"shapes|no distribution"):
        attention_stability(before, after)
