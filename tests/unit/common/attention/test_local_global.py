"""Local and global attention: the pattern by plain loops, and full attention where the pattern covers all."""

import itertools

import pytest
import torch

from common.attention.local_global import LocalGlobalAttention, neighbours_and_all
from common.attention.self_attention import SelfAttention


@pytest.mark.parametrize(("grid", "radius"), [((7,), (2,)), ((4, 5), (1, 2)), ((3, 2, 4), (1, 1, 1))])
@torch.no_grad()
def test_the_map_is_zero_exactly_outside_the_pattern(grid, radius):
    torch.manual_seed(0)
    places = list(itertools.product(*(range(side) for side in grid)))
    layer = LocalGlobalAttention(8, grid, radius, everywhere=0, heads=2)
    found = layer.attend(torch.randn(1, len(places), 8))[1]
    for (i, one), (j, other) in itertools.product(enumerate(places), repeat=2):
        near = all(abs(a - b) <= r for a, b, r in zip(one, other, radius, strict=True))
        assert ((found[0, :, i, j] > 0) == near).all()


@torch.no_grad()
def test_a_pattern_of_all_is_self_attention():
    torch.manual_seed(0)
    layer, full = LocalGlobalAttention(8, (3, 4), (3, 3), heads=2), SelfAttention(8, 2)
    full.load_state_dict({key.removeprefix("heads."): value for key, value in layer.state_dict().items()})
    tokens = torch.randn(2, 12, 8)
    torch.testing.assert_close(layer(tokens), full(tokens), atol=1e-6, rtol=1e-5)


def test_global_tokens_see_all_and_are_seen_by_all():
    pattern = neighbours_and_all((4, 4), (1, 1), everywhere=2)
    full = [index for index in range(16) if pattern[index].all()]
    assert full == [4, 12]
    assert pattern[:, full].all()
    assert torch.equal(pattern, pattern.T)


@torch.no_grad()
def test_the_class_token_is_global():
    layer = LocalGlobalAttention(8, (4, 4), (1, 1), everywhere=0, heads=2)
    found = layer.attend(torch.randn(1, 17, 8))[1]
    assert (found[:, :, 0] > 0).all()
    assert (found[:, :, :, 0] > 0).all()
    assert (found == 0).any()


@torch.no_grad()
def test_a_token_whose_neighbourhood_is_masked_looks_at_what_is_real():
    layer = LocalGlobalAttention(8, (12,), (1,), everywhere=0, heads=2)
    mask = torch.arange(12)[None] < 4
    mixed, maps = layer.attend(torch.randn(1, 12, 8), mask)
    assert mixed.isfinite().all()
    assert maps[..., 4:].abs().max() == 0
    torch.testing.assert_close(maps.sum(-1), torch.ones(1, 2, 12))
