"""Weight standardisation by hand."""

import pytest
import torch
from torch.nn import functional as F

from common.models.weight_standardised import WeightStandardisedConv2d


@pytest.fixture
def layer():
    torch.manual_seed(1)
    layer = WeightStandardisedConv2d(4, 6, stride=2)
    with torch.no_grad():
        layer.weight.mul_(3).add_(5)
        layer.gain.copy_(torch.linspace(0.5, 2, 6))
        layer.bias.normal_()
    return layer


def test_filters_have_mean_zero_and_the_variance_of_one_over_fan_in(layer):
    filters = layer.standardised().flatten(1).double()
    torch.testing.assert_close(filters.mean(1), torch.zeros(6).double(), atol=1e-6, rtol=0)
    expected = layer.gain.double().square() / 36
    torch.testing.assert_close(filters.var(1, correction=0), expected, atol=0, rtol=1e-4)


def test_keeps_the_variance_of_white_noise():
    torch.manual_seed(2)
    layer = WeightStandardisedConv2d(16, 64)
    with torch.no_grad():
        variance = layer(torch.randn(64, 16, 12, 12))[:, :, 1:-1, 1:-1].var()
    assert variance.item() == pytest.approx(1, abs=0.03)


def test_one_filter_by_hand():
    layer = WeightStandardisedConv2d(1, 1, kernel=1)
    assert layer.standardised().item() == 0  # a single weight is its own mean
    layer = WeightStandardisedConv2d(2, 1, kernel=1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1))
    # mean 2, deviations (-1, 1), their norm the root of 2
    torch.testing.assert_close(layer.standardised().flatten(), torch.tensor([-(0.5**0.5), 0.5**0.5]), atol=1e-4, rtol=0)


def test_adding_a_constant_or_scaling_the_weights_changes_nothing(layer):
    features = torch.randn(2, 4, 9, 9)
    before = layer(features)
    with torch.no_grad():
        layer.weight.mul_(2).add_(-3)
    torch.testing.assert_close(layer(features), before, atol=1e-4, rtol=1e-4)


def test_is_a_convolution_with_the_standardised_filters(layer):
    features = torch.randn(2, 4, 9, 9)
    expected = F.conv2d(features, layer.standardised(), layer.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(features), expected)
    assert layer(features).shape == (2, 6, 5, 5)


def test_the_first_gain_scales_the_output():
    torch.manual_seed(3)
    one = WeightStandardisedConv2d(3, 5)
    two = WeightStandardisedConv2d(3, 5, gain=2.0)
    two.load_state_dict({**one.state_dict(), "gain": two.gain.detach()})
    features = torch.randn(2, 3, 7, 7)
    torch.testing.assert_close(two(features), 2 * one(features))
