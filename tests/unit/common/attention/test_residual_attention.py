"""Residual attention against its formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.attention.residual_attention import ResidualAttention
from common.attention.residual_unit import ResidualUnit


def test_a_unit_equals_its_formula():
    torch.manual_seed(0)
    unit = ResidualUnit(8)
    features = torch.randn(2, 8, 5, 5)

    def normalised(x):
        centred = x - x.mean((1, 2, 3), keepdim=True)
        return (centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()).clamp(min=0)

    x = torch.einsum("oc,bchw->bohw", unit.conv1.weight.flatten(1), normalised(features))
    patches = F.unfold(normalised(x), 3, padding=1)
    x = (unit.conv2.weight.flatten(1) @ patches).view(2, 2, 5, 5)
    x = torch.einsum("oc,bchw->bohw", unit.conv3.weight.flatten(1), normalised(x))
    torch.testing.assert_close(unit(features), features + x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(7, 8), (3, 4, 5)], ids=["2d", "3d"])
def test_a_mask_of_one_half_strengthens_the_trunk_by_one_half(shape):
    """With the mask's last convolution at zero every gate is sigmoid(0)."""
    torch.manual_seed(1)
    layer = ResidualAttention(8, len(shape))
    nn.init.zeros_(layer.gate[5].weight)
    features = torch.randn(2, 8, *shape)
    strengthened, gates = layer.attend(features)
    torch.testing.assert_close(gates, torch.full_like(features, 0.5), atol=0, rtol=0)
    expected = layer.last(1.5 * layer.trunk(layer.first(features)))
    torch.testing.assert_close(strengthened, expected, atol=1e-6, rtol=1e-6)


def test_a_gate_sees_further_than_its_trunk():
    """One pixel moves the maximum of a cell, and with it gates that the trunk alone would not reach."""
    torch.manual_seed(2)
    layer = ResidualAttention(4, norm=lambda _: nn.Identity())
    layer.first, layer.trunk = nn.Identity(), nn.Identity()
    features = torch.rand(1, 4, 16, 16)
    changed = features.clone()
    changed[..., 8, 8] = 5
    moved = (layer.attend(changed)[1] - layer.attend(features)[1]).abs().amax((0, 1)) > 0
    assert moved.any(1).sum() > 4
    assert not moved.all()


def test_one_image_of_one_position_can_be_trained_on():
    """A unit of one hidden channel would have one value to normalise, which is refused while training."""
    layer = ResidualAttention(4).train()
    assert layer(torch.randn(1, 4, 1, 1)).isfinite().all()
