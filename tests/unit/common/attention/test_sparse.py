"""Top-k, sparsemax and entmax against softmax, a projection of our own, and a slow search by halving."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional as F

from common.attention.entmax import Entmax15
from common.attention.mapped import MappedAttention
from common.attention.self_attention import SelfAttention
from common.attention.simplex import project
from common.attention.sparsemax import Sparsemax
from common.attention.top_k import TopK, TopKAttention
from common.errors import ConfigError

ROWS = arrays(np.float64, st.integers(1, 12), elements=st.floats(-5, 5, allow_nan=False))


def entmax_by_halving(scores, alpha):
    """p = max((α - 1) z - τ, 0)^(1 / (α - 1)), τ found by halving an interval."""
    x = (alpha - 1) * scores
    low, high = x.max() - 1, x.max()
    for _ in range(200):
        middle = (low + high) / 2
        total = (x - middle).clamp_min(0).pow(1 / (alpha - 1)).sum()
        low, high = (middle, high) if total >= 1 else (low, middle)
    return (x - low).clamp_min(0).pow(1 / (alpha - 1))


@given(ROWS)
def test_sparsemax_is_the_projection_onto_the_simplex(row):
    np.testing.assert_allclose(Sparsemax()(torch.from_numpy(row)).numpy(), project(row), atol=1e-12)


@given(ROWS)
def test_entmax_equals_the_search_by_halving(row):
    scores = torch.from_numpy(row)
    torch.testing.assert_close(Entmax15()(scores), entmax_by_halving(scores, 1.5), atol=1e-10, rtol=0)


def test_the_search_by_halving_spans_softmax_to_sparsemax():
    scores = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(entmax_by_halving(scores, 1.0001), F.softmax(scores, -1), atol=1e-3, rtol=0)
    torch.testing.assert_close(entmax_by_halving(scores, 2), Sparsemax()(scores), atol=1e-10, rtol=0)


@pytest.mark.parametrize("maps", [Sparsemax(), Entmax15(), TopK(3)])
def test_gradients_equal_finite_differences(maps):
    scores = torch.randn(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(maps, (scores,))


@pytest.mark.parametrize("maps", [Sparsemax(), Entmax15(), TopK(3)])
def test_minus_infinity_gets_nothing_and_no_gradient(maps):
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(4, 7, generator=generator)
    weights = maps(scores.clone().index_fill(1, torch.tensor([2, 5]), -torch.inf).requires_grad_())
    torch.testing.assert_close(weights[:, [0, 1, 3, 4, 6]], maps(scores[:, [0, 1, 3, 4, 6]]))
    assert weights[:, [2, 5]].abs().max() == 0
    leaf = scores.requires_grad_()
    maps(leaf.masked_fill(torch.tensor([0, 0, 1, 0, 0, 1, 0], dtype=torch.bool), -torch.inf)).square().sum().backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad[:, [2, 5]].abs().max() == 0


@pytest.mark.parametrize("maps", [Sparsemax(), Entmax15()])
def test_equal_scores_share_and_a_far_score_takes_all(maps):
    torch.testing.assert_close(maps(torch.full((2, 5), 3.0)), torch.full((2, 5), 0.2))
    assert maps(torch.tensor([0.0, 2.0, 0.0])).tolist() == [0, 1, 0]


@torch.no_grad()
def test_keeping_all_is_self_attention():
    torch.manual_seed(0)
    layer, full = MappedAttention(8, 2, TopK(11)), SelfAttention(8, 2)
    full.load_state_dict({key.removeprefix("heads."): value for key, value in layer.state_dict().items()})
    tokens = torch.randn(2, 11, 8)
    torch.testing.assert_close(layer(tokens), full(tokens), atol=1e-6, rtol=1e-5)


def test_top_k_keeps_the_largest_and_drops_the_rest():
    weights = TopK(2)(torch.tensor([1.0, 3.0, 2.0, 0.0]))
    expected = F.softmax(torch.tensor([3.0, 2.0]), -1)
    assert weights[[0, 3]].tolist() == [0, 0]
    torch.testing.assert_close(weights[[1, 2]], expected)
    assert int((TopKAttention.build(8, (5, 5)).attend(torch.randn(1, 25, 8))[1] > 0).sum(-1).max()) == 8


def test_straight_through_gives_hard_weights_and_the_gradient_of_softmax():
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(3), requires_grad=True)
    towards = torch.arange(6.0)
    weights = TopK(2, straight=True)(scores)
    assert torch.equal(weights, TopK(2)(scores))
    (found,) = torch.autograd.grad((weights * towards).sum(), scores)
    (expected,) = torch.autograd.grad((F.softmax(scores, -1) * towards).sum(), scores)
    torch.testing.assert_close(found, expected)


def test_keeping_nothing_is_refused():
    with pytest.raises(ConfigError, match="told to keep 0 scores"):
        TopK(0)
