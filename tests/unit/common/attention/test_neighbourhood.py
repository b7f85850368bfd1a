"""Neighbourhood attention against plain self-attention with a pattern, and its edges by hand."""

import math

import pytest
import torch

from common.attention.neighbourhood import DilatedNeighbourhood, Neighbourhood, around, odd


@pytest.mark.parametrize(
    ("grid", "window", "dilation"), [((6, 5), (3, 3), 1), ((7, 9), (3, 5), 2), ((4, 3, 5), (3, 1, 3), 1)]
)
def test_is_self_attention_that_sees_only_its_neighbourhood(grid, window, dilation) -> None:
    """Oracle: scores of all pairs; pairs that are no neighbours have the weight zero, pairs that are their bias."""
    torch.manual_seed(1)
    layer = Neighbourhood(8, window, heads=2, dilation=dilation).eval()
    torch.nn.init.normal_(layer.bias.table)
    features = torch.randn(2, 8, *grid)
    mixed, maps = layer.attend(features)
    query, key, value = layer.heads.split(features.flatten(2).transpose(1, 2))
    scores = query @ key.transpose(-2, -1) / math.sqrt(4)
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid))
    pattern = torch.full_like(scores, -math.inf)
    offsets = torch.cartesian_prod(*((torch.arange(side) - side // 2) * dilation for side in window))
    for k, offset in enumerate(offsets):
        for n, place in enumerate(places):
            (at,) = torch.where((places == place + offset).all(1))
            pattern[:, :, n, at] = layer.bias.table[:, 0, k][None, :, None].expand(2, 2, len(at))
    full = (scores + pattern).softmax(-1)
    expected = layer.heads.join(full @ value).transpose(1, 2).reshape(features.shape)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, len(places)))
    torch.testing.assert_close(maps.amax(-1), full.amax(-1))


def test_gathers_row_by_row_with_zeros_outside() -> None:
    tokens = torch.arange(1.0, 10.0).reshape(1, 1, 9, 1)
    found = around(tokens, (3, 3), (3, 3))[0, 0, :, :, 0]
    assert found[4].tolist() == list(range(1, 10))
    assert found[0].tolist() == [0, 0, 0, 0, 1, 2, 0, 4, 5]
    assert around(tokens, (3, 3), (3, 3), dilation=2)[0, 0, 0, :, 0].tolist() == [0, 0, 0, 0, 1, 3, 0, 7, 9]


def test_fits_the_grid() -> None:
    assert [odd(side) for side in (1, 2, 3, 6, 7)] == [1, 1, 3, 5, 7]
    assert Neighbourhood.build(8, (6, 24)).window == (5, 7)
    assert DilatedNeighbourhood.build(8, (12, 6)).dilation == 2
    assert DilatedNeighbourhood.build(8, (1, 1)).window == (1, 1)
