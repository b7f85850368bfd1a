"""The attention gate against its formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.attention.attention_gate import AttentionGate
from common.attention.spatial import resize


@pytest.mark.parametrize("coarse", [(6, 6), (3, 3)], ids=["same grid", "coarser gating"])
def test_equals_the_formula(coarse):
    torch.manual_seed(0)
    layer = AttentionGate(8, gating=16, inner=5)
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    features, gating = torch.randn(2, 8, 12, 12), torch.randn(2, 16, *coarse)
    # each 2x2 patch of the features times theta, plus phi times the gating signal
    patches = features.unfold(2, 2, 2).unfold(3, 2, 2)  # [B, C, 6, 6, 2, 2]
    fine = torch.einsum("bchwij,ocij->bohw", patches, layer.theta.weight)
    signal = torch.einsum("bghw,og->bohw", gating, layer.phi.weight[:, :, 0, 0]) + layer.phi.bias[:, None, None]
    added = fine + F.interpolate(signal, size=(6, 6), mode="bilinear", align_corners=False)
    mean, variance = added.mean((1, 2, 3), keepdim=True), added.var((1, 2, 3), keepdim=True, correction=0)
    added = (added - mean) / (variance + layer.norm.eps).sqrt()
    added = added * layer.norm.weight[:, None, None] + layer.norm.bias[:, None, None]
    psi = layer.gate[1]
    evidence = torch.einsum("bohw,o->bhw", added.clamp(min=0), psi.weight[0, :, 0, 0]) + psi.bias
    gates = (1 / (1 + torch.exp(-evidence)))[:, None]
    gated, got = layer.attend(features, gating)
    torch.testing.assert_close(got, gates, atol=1e-6, rtol=1e-5)
    enlarged = F.interpolate(gates, size=(12, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(gated, features * enlarged, atol=1e-6, rtol=1e-5)


def test_odd_sizes_pass():
    layer = AttentionGate(4, gating=8)
    gated, gates = layer.attend(torch.randn(2, 4, 13, 9), torch.randn(2, 8, 7, 5))
    assert gated.shape == (2, 4, 13, 9)
    assert gates.shape == (2, 1, 6, 4)


def test_an_open_gate_changes_nothing():
    layer = AttentionGate(4)
    nn.init.zeros_(layer.gate[1].weight)
    nn.init.constant_(layer.gate[1].bias, 50.0)
    features = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(layer(features, torch.randn(2, 4, 4, 4)), features)


def test_resize_keeps_a_constant_and_is_the_identity_at_equal_size():
    images = torch.full((1, 1, 3, 3), 0.7)
    torch.testing.assert_close(resize(images, torch.zeros(1, 1, 8, 5)), torch.full((1, 1, 8, 5), 0.7))
    assert resize(images, torch.zeros(2, 4, 3, 3)) is images


def test_a_last_convolution_comes_only_if_asked_for_and_after_the_same_draws():
    torch.manual_seed(5)
    plain = AttentionGate(4)
    torch.manual_seed(5)
    projected = AttentionGate(4, project=lambda channels: nn.GroupNorm(1, channels))
    assert [key for key in projected.state_dict() if key not in plain.state_dict()] == [
        f"project.{place}.{leaf}" for place in (0, 1) for leaf in ("weight", "bias")
    ]
    for key, value in plain.state_dict().items():
        assert torch.equal(projected.state_dict()[key], value)
    features, gating = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)
    after = projected.project(plain(features, gating))
    torch.testing.assert_close(projected(features, gating), after, atol=0, rtol=0)
