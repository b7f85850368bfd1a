"""ADD against its axioms, against scipy, and against distances that one can work out by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog
from scipy.special import rel_entr
from scipy.stats import wasserstein_distance

from common.attention.distance import (
    ETA,
    add_matrix,
    add_w,
    block_values,
    js_blocks,
    map_distance,
    ordered_distance,
    share_distance,
    w_blocks,
)
from common.attention.schema import Block, Schema
from common.attention.simplex import project
from common.errors import AttentionError, DataError

WEIGHT = 5**-0.5
SCHEMA = Schema(
    "0" * 64,
    (
        Block("a", "gate_hist", "histogram", 0, 8, None, WEIGHT),
        Block("a", "mass_map", "map", 8, 16, (4, 4), WEIGHT),
        Block("b", "gate_mom", "scalars", 24, 4, None, WEIGHT / 2),
        Block("b", "gate_prof", "profile", 28, 16, None, WEIGHT / 4),
        Block("c", "usage", "shares", 44, 3, None, WEIGHT),
    ),
    (WEIGHT,) * 5,
)


def simplex(size):
    positive = arrays(np.float64, size, elements=st.floats(0, 1)).filter(lambda v: v.sum() > 1e-3)
    return positive.map(lambda v: v / v.sum())


def unit(size):
    return arrays(np.float64, size, elements=st.floats(0, 1))


@st.composite
def means(draw):
    parts = (draw(simplex(8)), draw(simplex(16)), draw(unit(4)), draw(unit(16)), draw(simplex(3)))
    return np.concatenate([part * block.scale for part, block in zip(parts, SCHEMA.blocks, strict=True)])


@given(means(), means(), means())
def test_add_is_a_metric_in_the_unit_interval(a, b, c):
    ab, bc, ac = add_w(SCHEMA, a, b), add_w(SCHEMA, b, c), add_w(SCHEMA, a, c)
    assert 0 <= ab <= 1 + 1e-12
    assert ab == add_w(SCHEMA, b, a)
    assert add_w(SCHEMA, a, a) == 0
    assert ac <= ab + bc + 1e-12
    if np.abs(a - b).max() > 1e-6:
        assert ab > 0


@given(means(), means())
def test_add_is_the_mean_of_its_blocks(a, b):
    blocks = w_blocks(SCHEMA, a, b)
    assert all(0 <= distance <= 1 + 1e-12 for distance in blocks.values())
    assert add_w(SCHEMA, a, b) == pytest.approx(np.mean(list(blocks.values())), abs=1e-12)


@given(means(), means())
def test_one_of_n_patients_moves_add_by_at_most_one_nth(a, b):
    moved = (9 * a + b) / 10
    assert add_w(SCHEMA, a, moved) <= 0.1 + 1e-9


@given(simplex(8), simplex(8))
def test_histograms_equal_scipy(p, q):
    expected = wasserstein_distance(range(8), range(8), p, q) / 7
    assert ordered_distance(p, q) == pytest.approx(expected, abs=1e-9)


def test_histograms_by_hand():
    assert ordered_distance(np.eye(8)[0], np.eye(8)[7]) == 1
    assert ordered_distance(np.eye(6)[1], np.eye(6)[3]) == pytest.approx(2 / 5)
    assert ordered_distance(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == 0.5


CORNERS = [0, 3, 12, 15]


@pytest.mark.parametrize("first", CORNERS)
@pytest.mark.parametrize("second", CORNERS)
def test_corner_masses_are_one_apart(first, second):
    assert map_distance(np.eye(16)[first], np.eye(16)[second], (4, 4)) == pytest.approx(float(first != second))


def test_maps_by_hand():
    one = np.eye(16)
    # Neighbours in one quadrant differ on the finest level only: (1/4 · 2) / (3/2).
    assert map_distance(one[0], one[1], (4, 4)) == pytest.approx(1 / 3)
    # Neighbours across the middle differ on both levels: the tree's price for a closed form.
    assert map_distance(one[1], one[2], (4, 4)) == pytest.approx(1)
    assert map_distance(one[0], np.full(16, 1 / 16), (4, 4)) == pytest.approx((0.5 * 1.5 + 0.25 * 1.875) / 1.5)
    assert map_distance(np.eye(4)[0], np.eye(4)[3], (2, 2)) == 1


@given(simplex(16), simplex(16))
def test_maps_equal_optimal_transport_on_the_tree(p, q):
    """Slow twin: a linear programme whose cost is the path through the tree, edge 2^-l below level l - 1."""
    cells = [(i // 4, i % 4) for i in range(16)]
    cost = np.array(
        [
            [
                0.0 if x == y else 2 * 0.25 + (2 * 0.5 if (x[0] // 2, x[1] // 2) != (y[0] // 2, y[1] // 2) else 0.0)
                for y in cells
            ]
            for x in cells
        ]
    )
    margins = np.concatenate([np.kron(np.eye(16), np.ones(16)), np.kron(np.ones(16), np.eye(16))])
    found = linprog(cost.ravel(), A_eq=margins[:-1], b_eq=np.concatenate([p, q])[:-1])
    assert map_distance(p, q, (4, 4)) == pytest.approx(found.fun / 1.5, abs=1e-6)


def octree_path(x, y):
    """Length of the way between two cells of 2 x 4 x 4: edges of 1/4 below an octant, of 1/2 below the whole."""
    octants = [(d, r // 2, c // 2) for d, r, c in (x, y)]
    return 0.0 if x == y else 2 * 0.25 + (2 * 0.5 if octants[0] != octants[1] else 0.0)


def test_single_cells_of_a_volume_are_as_far_apart_as_the_way_through_the_octree():
    cells, one = list(np.ndindex(2, 4, 4)), np.eye(32)
    for x, y in product(range(32), repeat=2):
        expected = octree_path(cells[x], cells[y]) / 1.5
        assert map_distance(one[x], one[y], (2, 4, 4)) == pytest.approx(expected, abs=1e-12)
    assert map_distance(one[0], one[31], (2, 4, 4)) == 1


@settings(max_examples=25, deadline=None)
@given(simplex(32), simplex(32))
def test_maps_of_volumes_equal_optimal_transport_on_the_octree(p, q):
    cells = list(np.ndindex(2, 4, 4))
    cost = np.array([[octree_path(x, y) for y in cells] for x in cells])
    margins = np.concatenate([np.kron(np.eye(32), np.ones(32)), np.kron(np.ones(32), np.eye(32))])
    found = linprog(cost.ravel(), A_eq=margins[:-1], b_eq=np.concatenate([p, q])[:-1])
    assume(found.success)  # margins that differ in their last bits can look infeasible to the solver
    assert map_distance(p, q, (2, 4, 4)) == pytest.approx(found.fun / 1.5, abs=1e-6)


@given(simplex(16), simplex(16))
def test_a_volume_of_equal_slices_is_as_far_as_its_slice(p, q):
    volumes = (np.concatenate([side, side]) / 2 for side in (p, q))
    assert map_distance(*volumes, (2, 4, 4)) == pytest.approx(map_distance(p, q, (4, 4)), abs=1e-12)


@given(simplex(5), simplex(5))
def test_shares_are_apart_by_the_most_that_any_set_of_branches_differs(p, q):
    """Total variation is the greatest difference over all 32 subsets, and knows no order."""
    expected = max(abs(sum(p[i] - q[i] for i in range(5) if subset >> i & 1)) for subset in range(32))
    assert share_distance(p, q) == pytest.approx(expected, abs=1e-12)
    turned = np.random.default_rng(0).permutation(5)
    assert share_distance(p[turned], q[turned]) == pytest.approx(expected, abs=1e-12)
    assert share_distance(np.eye(5)[0], np.eye(5)[1]) == share_distance(np.eye(5)[0], np.eye(5)[4]) == 1


@pytest.mark.parametrize("grid", [(4, 2), (3, 3), (1, 1), (0, 0), (3, 4, 4), (2, 4, 2), (4,), (2, 2, 2, 2)])
def test_maps_need_a_square_of_a_power_of_two(grid):
    flat = np.ones(int(np.prod(grid)))
    with pytest.raises(DataError, match="squares of side 2, 4, 8"):
        map_distance(flat, flat, grid)


@given(means(), means())
def test_js_equals_scipy_and_leaves_scalars_out(a, b):
    found = js_blocks(SCHEMA, a, b)
    assert list(found) == ["a/gate_hist", "a/mass_map", "c/usage"]
    left, right = block_values(SCHEMA, a), block_values(SCHEMA, b)
    for label, value in found.items():
        size = len(left[label])
        p, q = ((1 - ETA) * side[label] + ETA / size for side in (left, right))
        middle = (p + q) / 2  # scipy's own distance takes the root of what rounding made negative
        expected = (rel_entr(p, middle) + rel_entr(q, middle)).sum() / (2 * np.log(2))
        assert value == pytest.approx(expected, abs=1e-9)
        assert 0 <= value <= 1


@given(means())
def test_blocks_are_unweighted(mean):
    for label, values in block_values(SCHEMA, mean).items():
        if label in ("a/gate_hist", "a/mass_map", "c/usage"):
            assert values.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        np.concatenate([v * b.scale for v, b in zip(block_values(SCHEMA, mean).values(), SCHEMA.blocks, strict=True)]),
        mean,
        atol=1e-9,
    )


@given(arrays(np.float64, 8, elements=st.floats(-3, 3)), simplex(8))
def test_projection_is_the_nearest_distribution(vector, other):
    nearest = project(vector)
    assert nearest.min() >= 0
    assert nearest.sum() == pytest.approx(1)
    assert np.linalg.norm(vector - nearest) <= np.linalg.norm(vector - other) + 1e-9
    # The variational inequality characterises the projection onto a convex set.
    assert (vector - nearest) @ (other - nearest) <= 1e-9


def test_matrix_is_symmetric_and_named():
    rng = np.random.default_rng(0)
    sites = {}
    for name in "xyz":
        parts = (
            rng.dirichlet(np.ones(8)),
            rng.dirichlet(np.ones(16)),
            rng.random(4),
            rng.random(16),
            rng.dirichlet(np.ones(3)),
        )
        sites[name] = np.concatenate([p * b.scale for p, b in zip(parts, SCHEMA.blocks, strict=True)])
    names, matrix = add_matrix(SCHEMA, sites)
    assert names == ("x", "y", "z")
    assert (matrix == matrix.T).all()
    assert (matrix.diagonal() == 0).all()
    assert matrix[0, 2] == add_w(SCHEMA, sites["x"], sites["z"]) > 0


def test_refuses_other_lengths_and_nan():
    with pytest.raises(AttentionError, match=r"\(47,\)"):
        add_w(SCHEMA, np.zeros(3), np.zeros(47))
    with pytest.raises(DataError, match="not finite"):
        add_w(SCHEMA, np.zeros(47), np.full(47, np.nan))
