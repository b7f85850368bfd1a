"""Windows against full attention over all places with a pattern that plain loops build."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from common.attention.relative_position import RelativePosition, offsets
from common.attention.window import ShiftedWindowAttention, WindowAttention
from common.attention.windows import merge, partition


def tokens_of(features):
    return features.flatten(2).transpose(1, 2)


def slow_twin(layer, features):
    """Full attention where both places lie in one window after the roll and on the same side of the joined edge."""
    grid = tuple(features.shape[2:])
    places = list(itertools.product(*(range(side) for side in grid)))
    shift = layer.sites(grid)[0].shift

    def room(place):
        rolled = [(p - s) % side for p, s, side in zip(place, shift, grid, strict=True)]
        return [r // w for r, w in zip(rolled, layer.window, strict=True)], [
            p < s for p, s in zip(place, shift, strict=True)
        ]

    query, key, value = layer.heads.split(tokens_of(features))
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    for i, one in enumerate(places):
        for j, other in enumerate(places):
            if room(one) != room(other):
                scores[:, :, i, j] = -math.inf
                continue
            index = 0
            for p, q, side in zip(one, other, layer.window, strict=True):
                index = index * (2 * side - 1) + p - q + side - 1
            scores[:, :, i, j] += layer.bias.table[index]
    mixed = layer.heads.join(F.softmax(scores, -1) @ value)
    return mixed.transpose(1, 2).reshape(features.shape)


@pytest.mark.parametrize(
    ("grid", "window", "shift"),
    [
        ((6, 4), (2, 2), (0, 0)),
        ((6, 4), (2, 2), (1, 1)),
        ((5, 7), (3, 2), (0, 0)),
        ((5, 7), (3, 4), (1, 2)),
        ((3, 8), (3, 4), (1, 2)),
        ((3, 4, 5), (2, 2, 2), (1, 1, 1)),
    ],
)
@torch.no_grad()
def test_equals_full_attention_with_a_pattern(grid, window, shift):
    torch.manual_seed(0)
    layer = WindowAttention(8, window, heads=2, shift=shift)
    layer.bias.table.normal_()
    features = torch.randn(2, 8, *grid)
    torch.testing.assert_close(layer(features), slow_twin(layer, features), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_one_window_over_the_grid_is_attention_with_relative_positions():
    torch.manual_seed(0)
    window = WindowAttention(8, (4, 3), heads=2)
    whole = RelativePosition(8, (4, 3), heads=2)
    window.bias.table.normal_()
    whole.load_state_dict(window.state_dict())
    features = torch.randn(2, 8, 4, 3)
    mixed, maps = window.attend(features)
    expected, full = whole.attend(tokens_of(features))
    torch.testing.assert_close(tokens_of(mixed), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(maps[:, 0], full, atol=1e-6, rtol=1e-5)


def test_no_shift_along_an_axis_that_one_window_covers():
    layer = WindowAttention(8, (4, 4), heads=2, shift=(2, 2))
    assert layer.sites((4, 8))[0].shift == (0, 2)


def test_half_windows_are_shifted_and_there_is_more_than_one():
    layer = ShiftedWindowAttention.build(8, (8, 20))
    assert (layer.window, layer.shift) == ((4, 7), (2, 3))


@pytest.mark.parametrize(("grid", "window"), [((5, 7), (2, 3)), ((4, 4), (2, 2)), ((3, 5, 4), (2, 2, 4))])
def test_merge_undoes_partition(grid, window):
    features = torch.randn(2, *grid, 3)
    tiles = partition(features, window)
    assert torch.equal(merge(tiles, grid, window), features)
    assert tiles.shape[1] == math.prod(-(-side // step) for side, step in zip(grid, window, strict=True))


def test_windows_follow_each_other_row_by_row():
    tiles = partition(torch.arange(16.0).reshape(1, 4, 4, 1), (2, 2))
    assert tiles[0, 1, :, 0].tolist() == [2, 3, 6, 7]


@torch.no_grad()
def test_without_learnt_offsets_it_is_plain_self_attention():
    torch.manual_seed(0)
    layer = RelativePosition(8, (3, 4), heads=2)
    layer.bias.table.zero_()
    tokens = torch.randn(2, 13, 8)
    query, key, value = layer.heads.split(tokens)
    expected = layer.heads.join(F.scaled_dot_product_attention(query, key, value))
    torch.testing.assert_close(layer(tokens), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_class_token_has_no_bias():
    torch.manual_seed(0)
    bias = RelativePosition(8, (3, 4), heads=2).bias
    bias.table.fill_(2)
    added = bias(torch.zeros(1, 2, 13, 13))
    assert added[..., 0, :].abs().max() == added[..., :, 0].abs().max() == 0
    assert (added[..., 1:, 1:] == 2).all()


def test_offsets_are_numbered_once_each():
    index = offsets((2, 3))
    assert index.unique().tolist() == list(range(15))
    assert index[0, 0] == index[5, 5] == 7  # no way apart, in the middle of the table
    assert index[0, 1] == index[3, 4] == 6
