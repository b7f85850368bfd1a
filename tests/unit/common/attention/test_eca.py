"""Efficient channel attention against its formula."""

import pytest
import torch

from common.attention.eca import EfficientChannelAttention, kernel_for
from common.errors import ConfigError


@pytest.mark.parametrize("kernel", [3, 5])
def test_equals_the_formula(kernel):
    torch.manual_seed(0)
    layer = EfficientChannelAttention(8, kernel)
    features = torch.randn(3, 8, 5, 6)
    (weight,) = (parameter.flatten() for parameter in layer.parameters())
    means = features.flatten(2).mean(2)
    gates = torch.zeros(3, 8)
    for channel in range(8):
        for offset in range(kernel):
            neighbour = channel + offset - kernel // 2
            if 0 <= neighbour < 8:
                gates[:, channel] += weight[offset] * means[:, neighbour]
    gates = 1 / (1 + torch.exp(-gates))
    gated, got = layer.attend(features)
    torch.testing.assert_close(got, gates, atol=1e-6, rtol=0)
    torch.testing.assert_close(gated, torch.einsum("bchw,bc->bchw", features, gates), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("channels", "kernel"), [(1, 1), (8, 3), (16, 3), (64, 3), (128, 5), (256, 5), (2048, 7)])
def test_the_kernel_grows_with_the_channels(channels, kernel):
    """128 channels: (7 + 1) / 2 = 4 is even, so 5."""
    assert kernel_for(channels) == kernel


def test_an_even_kernel_is_refused():
    with pytest.raises(ConfigError, match="take 5"):
        EfficientChannelAttention(8, 4)
