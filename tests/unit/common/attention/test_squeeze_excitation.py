"""Squeeze-and-excitation against its formula."""

import torch

from common.attention.squeeze_excitation import SqueezeExcitation


def test_equals_the_formula():
    torch.manual_seed(0)
    layer = SqueezeExcitation(8, reduction=2)
    torch.nn.init.normal_(layer.gate[0].bias)
    features = torch.randn(3, 8, 5, 6)
    first, second = layer.gate[0], layer.gate[2]
    squeezed = torch.stack([features[:, channel].flatten(1).mean(1) for channel in range(8)], 1)
    hidden = torch.clamp(squeezed @ first.weight.T + first.bias, min=0)
    gates = 1 / (1 + torch.exp(-(hidden @ second.weight.T + second.bias)))
    gated, got = layer.attend(features)
    torch.testing.assert_close(got, gates, atol=1e-6, rtol=0)
    torch.testing.assert_close(gated, torch.einsum("bchw,bc->bchw", features, gates), atol=1e-6, rtol=0)
