"""Pooled keys against PyTorch's own attention and pooling."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.attention.pooled_keys import PooledKeys, averages
from common.errors import ConfigError


@torch.no_grad()
@pytest.mark.parametrize("explicit", [False, True])
def test_equals_multihead_attention_over_averages(explicit):
    torch.manual_seed(0)
    ours = PooledKeys(8, heads=2, run=3, norm=lambda channels: nn.Identity())
    ours.explicit = explicit
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    tokens = torch.randn(2, 12, 8)
    pooled = F.avg_pool1d(tokens.transpose(1, 2), 3).transpose(1, 2)
    expected, maps = theirs(tokens, pooled, pooled, average_attn_weights=False)
    torch.testing.assert_close(ours(tokens), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.attend(tokens)[1], maps, atol=1e-6, rtol=1e-5)


def test_averages_take_what_is_real_of_each_run():
    tokens = torch.arange(1.0, 8.0).reshape(1, 7, 1)
    mask = torch.tensor([[1, 0, 1, 0, 0, 0, 1]], dtype=torch.bool)
    means, real = averages(tokens, mask, 3)
    assert means.flatten().tolist() == [2, 0, 7]
    assert real.tolist() == [[True, False, True]]
    assert averages(tokens, None, 3)[0].flatten().tolist() == [2, 5, 7]


def test_heads_must_divide_the_dimension():
    with pytest.raises(ConfigError, match="4 heads do not divide"):
        PooledKeys(10)
