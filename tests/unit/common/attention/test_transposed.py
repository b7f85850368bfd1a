"""Attention between channels: cosines by hand, and no notion of place."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.attention.transposed import TransposedAttention
from common.errors import ConfigError


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = TransposedAttention(8, heads=2)
    layer.near = nn.Identity()
    return layer


@pytest.mark.parametrize("grid", [(4, 5), (3, 1, 5)])
@torch.no_grad()
def test_scores_are_cosines_of_channels(grid):
    torch.manual_seed(0)
    layer = TransposedAttention(8, len(grid), heads=2)
    layer.near = nn.Identity()
    layer.scale.scale.copy_(torch.tensor([3.0, 0.5]))
    features = torch.randn(1, 8, *grid)
    mixed, maps = layer.attend(features)
    parts = layer.qkv(features)[0].flatten(1)
    rows = []
    for head, scale in enumerate((3.0, 0.5)):
        query, key, value = (parts[start + 4 * head :][:4] for start in (0, 8, 16))
        scores = torch.stack([F.cosine_similarity(one[None], key) for one in query])
        weights = F.softmax(scale * scores, -1)
        torch.testing.assert_close(maps[0, head], weights, atol=1e-6, rtol=1e-5)
        rows.append(weights @ value)
    expected = layer.proj(torch.cat(rows).reshape(features.shape))
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_moving_the_places_moves_the_output_and_not_the_map(layer):
    features, order = torch.randn(2, 8, 4, 5), torch.randperm(20)
    moved = features.flatten(2)[..., order].reshape(2, 8, 4, 5)
    (mixed, maps), (after, same) = layer.attend(features), layer.attend(moved)
    torch.testing.assert_close(same, maps, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(after.flatten(2), mixed.flatten(2)[..., order], atol=1e-6, rtol=1e-5)


def test_heads_must_divide_the_channels():
    with pytest.raises(ConfigError, match="4 heads do not divide 10 channels"):
        TransposedAttention(10)
