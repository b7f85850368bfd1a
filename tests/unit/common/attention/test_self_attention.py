"""Self-attention against PyTorch's own layer with the same weights."""

import pytest
import torch
from torch import nn

from common.attention.self_attention import SelfAttention
from common.errors import ConfigError


@pytest.fixture
def twins():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(24, heads=3), nn.MultiheadAttention(24, 3, batch_first=True)
    nn.init.normal_(ours.qkv.bias)
    nn.init.normal_(ours.proj.bias)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.proj.weight)
        theirs.out_proj.bias.copy_(ours.proj.bias)
    return ours, theirs


@pytest.mark.parametrize("explicit", [False, True])
def test_equals_multihead_attention(twins, explicit):
    ours, theirs = twins
    ours.explicit = explicit
    tokens = torch.randn(2, 11, 24)
    expected, maps = theirs(tokens, tokens, tokens, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(ours(tokens), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.attend(tokens)[1], maps, atol=1e-6, rtol=1e-5)


def test_the_map_exists_only_when_asked_for():
    layer = SelfAttention(8, heads=2)
    seen = []
    layer.maps.register_forward_hook(lambda _, __, output: seen.append(output))
    tokens = torch.randn(1, 3, 8)
    layer(tokens)
    assert not seen
    layer.explicit = True
    layer(tokens)
    assert [tuple(output.shape) for output in seen] == [(1, 2, 3, 3)]


def test_moving_the_tokens_moves_the_output(twins):
    ours, _ = twins
    tokens, order = torch.randn(2, 7, 24), torch.randperm(7)
    torch.testing.assert_close(ours(tokens[:, order]), ours(tokens)[:, order], atol=1e-6, rtol=1e-5)


def test_heads_must_divide_the_dimension():
    with pytest.raises(ConfigError, match="4 heads do not divide the token dimension 10"):
        SelfAttention(10, heads=4)
