"""The mixture of expert convolutions against one convolution with a mixed kernel."""

import pytest
import torch
from torch.nn import functional as F

from common.attention.moe import ExpertMixture
from common.errors import ConfigError


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5)], ids=["2d", "3d"])
def test_equals_one_convolution_with_a_kernel_mixed_per_image(shape):
    torch.manual_seed(0)
    layer = ExpertMixture(4, experts=3, temperature=2, dims=len(shape))
    features = torch.randn(3, 4, *shape)
    first, second = layer.evidence[0], layer.evidence[2]
    hidden = torch.clamp(features.flatten(2).mean(2) @ first.weight.T + first.bias, min=0)
    scores = torch.exp((hidden @ second.weight.T + second.bias) / 2)
    weights = scores / scores.sum(1, keepdim=True)
    convolve = F.conv2d if len(shape) == 2 else F.conv3d
    expected = []
    for image, share in zip(features, weights, strict=True):
        kernel = sum(w * expert.weight for w, expert in zip(share, layer.experts, strict=True))
        bias = sum(w * expert.bias for w, expert in zip(share, layer.experts, strict=True))
        expected.append(convolve(image[None], kernel, bias, padding=1)[0])
    mixed, got = layer.attend(features)
    torch.testing.assert_close(got[..., 0], weights, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed, torch.stack(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arguments", [{"experts": 1}, {"temperature": 0}])
def test_a_mixture_of_one_or_without_temperature_is_refused(arguments):
    with pytest.raises(ConfigError, match="two experts or more"):
        ExpertMixture(4, **arguments)
