"""Linear attention against the sum over all pairs, token by token."""

import pytest
import torch
from torch.nn import functional as F

from common.attention.linear import LinearAttention


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return LinearAttention(8, heads=2)


@torch.no_grad()
def test_equals_the_sum_over_pairs(layer):
    tokens = torch.randn(2, 5, 8)
    query, key, value = layer.heads.split(tokens)
    query, key = F.elu(query) + 1, F.elu(key) + 1
    mixed = torch.zeros_like(value)
    for i in range(5):
        weights = torch.stack([(query[:, :, i] * key[:, :, j]).sum(-1) for j in range(5)], -1)
        weights = weights / weights.sum(-1, keepdim=True)
        mixed[:, :, i] = sum(weights[..., j, None] * value[:, :, j] for j in range(5))
    torch.testing.assert_close(layer(tokens), layer.heads.join(mixed), atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_both_paths_agree(layer, masked):
    tokens = torch.randn(2, 40, 8)
    mask = torch.rand(2, 40) > 0.4 if masked else None
    mixed, maps = layer.attend(tokens, mask)
    torch.testing.assert_close(layer(tokens, mask), mixed, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 40))


@torch.no_grad()
def test_masked_tokens_are_as_if_they_were_not_there(layer):
    tokens = torch.randn(2, 9, 8)
    mask = torch.arange(9).expand(2, 9) < 6
    torch.testing.assert_close(layer(tokens, mask)[:, :6], layer(tokens[:, :6]), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_an_image_of_nothing_gives_numbers(layer):
    assert layer(torch.randn(1, 4, 8), torch.zeros(1, 4, dtype=torch.bool)).isfinite().all()
