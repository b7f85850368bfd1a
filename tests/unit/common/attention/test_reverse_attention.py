"""Reverse attention against its formula."""

import torch
from torch.nn import functional as F

from common.attention.reverse_attention import ReverseAttention


def test_equals_the_formula():
    torch.manual_seed(0)
    layer = ReverseAttention(6)
    features, deeper = torch.randn(2, 4, 8, 8), torch.randn(2, 6, 4, 4)
    coarse = torch.einsum("bghw,g->bhw", deeper, layer.predict.weight.flatten()) + layer.predict.bias
    fine = F.interpolate(coarse[:, None], size=(8, 8), mode="bilinear", align_corners=False)
    gated, gates = layer.attend(features, deeper)
    torch.testing.assert_close(gates, 1 - torch.sigmoid(fine), atol=1e-6, rtol=0)
    torch.testing.assert_close(gated, features * (1 - torch.sigmoid(fine)), atol=1e-6, rtol=0)


def test_a_prediction_is_used_as_it_is_and_what_it_found_is_erased():
    layer = ReverseAttention(1)
    assert not list(layer.parameters())
    found = torch.full((1, 1, 4, 4), -50.0)
    found[..., :2] = 50.0
    features = torch.ones(1, 3, 4, 4)
    passed = layer(features, found)
    torch.testing.assert_close(passed[..., :2], torch.zeros(1, 3, 4, 2))
    torch.testing.assert_close(passed[..., 2:], torch.ones(1, 3, 4, 2))
