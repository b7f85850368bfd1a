"""cSE, sSE and their combinations against their formulas."""

import pytest
import torch

from common.attention.cse import ChannelExcitation
from common.attention.scse import ConcurrentExcitation
from common.attention.sse import SpatialExcitation


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)], ids=["2d", "3d"])
def test_spatial_excitation_equals_the_formula(shape):
    torch.manual_seed(0)
    layer = SpatialExcitation(8, len(shape))
    features = torch.randn(3, 8, *shape)
    evidence = torch.einsum("bc...,c->b...", features, layer.gate[0].weight.flatten()) + layer.gate[0].bias
    gates = (1 / (1 + torch.exp(-evidence)))[:, None]
    gated, got = layer.attend(features)
    torch.testing.assert_close(got, gates, atol=1e-6, rtol=0)
    torch.testing.assert_close(gated, features * gates, atol=1e-6, rtol=0)


def test_channel_excitation_halves_the_channels():
    assert ChannelExcitation(8).gate[0].weight.shape == (4, 8)


@pytest.mark.parametrize(("combine", "both"), [("add", torch.add), ("max", torch.maximum)])
def test_concurrent_excitation_sees_the_same_features_twice(combine, both):
    torch.manual_seed(0)
    layer = ConcurrentExcitation(8, combine=combine)
    features = torch.randn(2, 8, 4, 4)
    channel, spatial = layer.channel(features), layer.spatial(features)
    torch.testing.assert_close(layer(features), both(channel, spatial), atol=0, rtol=0)


def test_open_gates_double_what_passes():
    layer = ConcurrentExcitation(4)
    for module in (layer.channel.gate[2], layer.spatial.gate[0]):
        torch.nn.init.zeros_(module.weight)
        torch.nn.init.constant_(module.bias, 50.0)
    features = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(layer(features), 2 * features)
