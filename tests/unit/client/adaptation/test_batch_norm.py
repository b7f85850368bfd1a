"""BatchNorm at test time: source statistics, batch statistics and what lies between, against torch's own layer."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from client.adaptation.affine import affine_names
from client.adaptation.batch_norm import TestBatchNorm, mixed, replace_batch_norms
from client.adaptation.bn_adapt import BnAdapt, BnAdaptSettings
from client.adaptation.source import Source
from client.adaptation.tent import Tent
from common.config import ModelSection
from common.models.build import build_model


@pytest.fixture
def layer():
    random = torch.Generator().manual_seed(0)
    made = nn.BatchNorm2d(3).eval()
    with torch.no_grad():
        for value in (made.weight, made.bias, made.running_mean):
            value.copy_(torch.randn(3, generator=random))
        made.running_var.copy_(torch.rand(3, generator=random) + 0.5)
    return made


def features(count=4, side=5):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 + 1


def by_torch(layer, x):
    return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)


def test_no_source_is_batch_statistics_and_much_source_is_the_source(layer):
    x = features()
    torch.testing.assert_close(TestBatchNorm(layer, mixed(0))(x), by_torch(layer, x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(TestBatchNorm(layer, mixed(1e9))(x), layer(x), rtol=1e-4, atol=1e-5)


def test_between_them_the_source_counts_as_so_many_images(layer):
    x = features(4)
    mean = (16 * layer.running_mean + 4 * x.mean((0, 2, 3))) / 20
    variance = (16 * layer.running_var + 4 * x.var((0, 2, 3), unbiased=False)) / 20
    wanted = F.batch_norm(x, mean, variance, layer.weight, layer.bias, training=False, eps=layer.eps)
    torch.testing.assert_close(TestBatchNorm(layer, mixed(16))(x), wanted, rtol=1e-4, atol=1e-5)


def test_one_image_of_one_position_is_finite(layer):
    out = TestBatchNorm(layer, mixed(0))(features(1, 1))
    torch.testing.assert_close(out[0, :, 0, 0], layer.bias)


def shipped():
    """A model with BatchNorm whose statistics are those of some images."""
    model = build_model(ModelSection(name="se-convnet", width=4, batch_norm=True), 1, 1, 16, seed=0).train()
    with torch.no_grad():
        for i in range(30):
            model(torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(i)))
    return model.eval()


@torch.no_grad()
def test_a_shift_of_intensity_is_undone_by_the_batch_and_not_by_the_source():
    """Standardising takes out an affine change of a layer's input; only a method that reads the batch can."""
    model = shipped()
    images = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(99))
    stronger = 4 * images
    clean = model(images).sigmoid().double()
    gap = {
        weight: float(
            (BnAdapt(model, Source(), BnAdaptSettings(source_weight=weight)).adapt(stronger) - clean).abs().mean()
        )
        for weight in (0, 16, 128, 1e9)
    }
    assert gap[16] < gap[128] < gap[1e9]
    assert max(gap[0], gap[16]) < 0.6 * gap[1e9]
    assert gap[1e9] == pytest.approx(float((model(stronger).sigmoid().double() - clean).abs().mean()), rel=1e-4)


def test_the_affine_parameters_are_found_before_and_after():
    model = shipped()
    before = affine_names(model)
    assert any(name.endswith("first.1.weight") for name in before)
    changed = deepcopy(model)
    replace_batch_norms(changed, mixed(0))
    assert affine_names(changed) == before
    assert list(changed.state_dict()) == list(model.state_dict())
    method = Tent(model, Source())
    old = {name: value.clone() for name, value in method.model.named_parameters()}
    method.adapt(torch.randn(8, 1, 16, 16))
    moved = {name for name, value in method.model.named_parameters() if not torch.equal(value, old[name])}
    assert any(name.endswith("first.1.weight") for name in moved)
