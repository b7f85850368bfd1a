"""Bags by hand: order, padding, groups of groups; the other modality; time and space."""

import pytest
import torch
from torch import nn

from common.attention.bag_attention import BagAttention, GatedBagAttention
from common.attention.cross_attention import CrossAttention
from common.attention.self_attention import SelfAttention
from common.attention.space_time import DividedSpaceTime
from common.attention.token_pooling import TokenPooling
from common.errors import ConfigError


def bag(count=9, dim=6, seed=0):
    return torch.randn(2, count, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("gated", [False, True])
def test_equals_the_formula(gated):
    torch.manual_seed(0)
    layer = GatedBagAttention(6, 5) if gated else BagAttention(6, 5)
    instances = bag()
    summary, weights = layer.attend(instances)
    for image in range(2):
        scores = []
        for h in instances[image]:
            hidden = torch.tanh(layer.content[0].weight @ h + layer.content[0].bias)
            if gated:
                hidden = hidden / (1 + torch.exp(-(layer.gate[0].weight @ h + layer.gate[0].bias)))
            scores.append((layer.score.weight @ hidden)[0])
        alpha = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
        torch.testing.assert_close(weights[image], alpha, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(summary[image], (alpha[:, None] * instances[image]).sum(0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layer", [BagAttention(6, 5), GatedBagAttention(6, 5)])
def test_order_changes_nothing_and_padding_neither(layer):
    instances, order = bag(), torch.randperm(9)
    torch.testing.assert_close(layer(instances[:, order]), layer(instances), atol=1e-6, rtol=1e-5)
    padded = torch.cat([instances, torch.full((2, 4, 6), 7.0)], 1)
    mask = torch.arange(13).expand(2, 13) < 9
    torch.testing.assert_close(layer(padded, mask), layer(instances), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layer", [BagAttention(6, 5), TokenPooling(6, 4, 5)])
def test_a_bag_with_nothing_real_gives_zeros(layer):
    assert torch.equal(layer(bag(), torch.zeros(2, 9, dtype=torch.bool)), torch.zeros(2, 6))


def test_groups_of_groups_are_two_bags():
    torch.manual_seed(0)
    layer, instances = TokenPooling(6, 4, 5), bag(9)
    summary, inside, among = layer.attend(instances)
    assert inside.shape == (2, 3, 4)
    assert among.shape == (2, 3)
    parts = [layer.inner(instances[:, start : start + 4]) for start in (0, 4, 8)]
    torch.testing.assert_close(summary, layer.outer(torch.stack(parts, 1)), atol=1e-6, rtol=1e-5)
    assert torch.equal(inside[:, 2, 1:], torch.zeros(2, 3))  # padding


def test_a_shut_gate_keeps_the_other_modality_out():
    layer = CrossAttention(8, 5)
    nn.init.zeros_(layer.gate[0].weight)
    nn.init.constant_(layer.gate[0].bias, -50.0)
    tokens, context = torch.randn(2, 7, 8), torch.randn(2, 3, 5)
    torch.testing.assert_close(layer(tokens, context), tokens)


def test_an_open_gate_is_pytorchs_own_cross_attention():
    torch.manual_seed(0)
    layer = CrossAttention(8, 8, heads=2)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    nn.init.zeros_(layer.gate[0].weight)
    nn.init.constant_(layer.gate[0].bias, 50.0)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([layer.query.bias, torch.zeros(8), layer.value.bias]))
        theirs.out_proj.weight.copy_(layer.proj.weight)
        theirs.out_proj.bias.copy_(layer.proj.bias)
    tokens, context = torch.randn(2, 7, 8), torch.randn(2, 3, 8)
    expected, maps = theirs(tokens, context, context, average_attn_weights=False)
    got, found = layer.attend(tokens, context)
    torch.testing.assert_close(got - tokens, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found, maps, atol=1e-6, rtol=1e-5)


def test_heads_must_divide_the_dimension():
    with pytest.raises(ConfigError, match="3 heads do not divide the token dimension 8"):
        CrossAttention(8, 8, heads=3)


def test_time_and_space_are_two_attentions():
    """Twin: self-attention with the same weights, one place after the other, then one frame after the other."""
    torch.manual_seed(0)
    layer, frames = DividedSpaceTime(8, 2), torch.randn(2, 3, 5, 8)
    time, space = SelfAttention(8, 2), SelfAttention(8, 2)
    for own, heads in ((time, layer.time), (space, layer.space)):
        own.qkv.load_state_dict(heads.qkv.state_dict())
        own.proj.load_state_dict(heads.proj.state_dict())
    expected = frames + torch.stack([time(frames[:, :, place]) for place in range(5)], 2)
    expected = expected + torch.stack([space(expected[:, frame]) for frame in range(3)], 1)
    torch.testing.assert_close(layer(frames), expected, atol=1e-6, rtol=1e-5)


def test_one_frame_looks_at_itself_alone():
    _, times, _ = DividedSpaceTime(8, 2).attend(torch.randn(2, 1, 5, 8))
    assert torch.equal(times, torch.ones(2, 5, 2, 1, 1))
