"""Axial reverse attention against its formula."""

import pytest
import torch
from torch import nn

from common.attention.axial_reverse import AxialKernel, AxialReverseAttention, SlicesLook
from common.attention.reverse_attention import ReverseAttention


@pytest.mark.parametrize(("shape", "axis"), [((4, 5), 0), ((4, 5), 1), ((3, 4, 5), 1)])
def test_slices_equal_the_formula(shape, axis):
    torch.manual_seed(0)
    layer = SlicesLook(8, axis, len(shape), reduction=4)
    nn.init.constant_(layer.scale.gate, 0.7)
    features = torch.randn(2, 8, *shape)
    query, key, value = (
        torch.einsum("oc,bc...->bo...", part.weight.flatten(1), features)
        for part in (layer.query, layer.key, layer.value)
    )
    expected = features.clone()
    for one in range(shape[axis]):
        for other in range(shape[axis]):
            likeness = (query.select(axis + 2, one) * key.select(axis + 2, other)).flatten(1).sum(1).sigmoid()
            slices = value.select(axis + 2, other)
            added = 0.7 * likeness.view(-1, *[1] * (slices.ndim - 1)) * slices
            expected.select(axis + 2, one).add_(added)
    torch.testing.assert_close(layer(features), expected, atol=1e-5, rtol=1e-5)


def test_fresh_it_is_two_convolutions_and_a_reverse_gate():
    """The learnt factors start at zero."""
    torch.manual_seed(1)
    layer = AxialReverseAttention(8, 6)
    alone = ReverseAttention(6)
    alone.load_state_dict(layer.reverse.state_dict())
    features, deeper = torch.randn(2, 8, 8, 8), torch.randn(2, 6, 4, 4)
    gated, gates = layer.attend(features, deeper)
    torch.testing.assert_close(gated, alone(layer.axial.start(features), deeper), atol=0, rtol=0)
    torch.testing.assert_close(gates, alone.attend(features, deeper)[1], atol=0, rtol=0)


def test_the_axes_come_in_the_order_asked_for():
    assert [look.axis - 2 for look in AxialKernel(8).looks] == [0, 1]
    assert [look.axis - 2 for look in AxialKernel(8, axes=(1, 1)).looks] == [1, 1]
    assert [look.axis - 2 for look in AxialKernel(8, 3).looks] == [0, 1, 2]
