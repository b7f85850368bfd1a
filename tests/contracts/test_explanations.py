"""Every explanation on every model: it keeps its promises, or says why the model does not fit."""

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch

from common.arrays import model_arrays
from common.config import load_run_config
from common.errors import AttentionError
from common.explanations import EXPLANATIONS
from common.models import MODELS
from common.models.build import build_model

BODIES = {
    **{name: (name, "") for name in ("se-convnet", "vit-tiny", "cbam-resnet", "attention-unet")},
    "convnet without": ("convnet", "none"),
    "convnet eca": ("convnet", "eca"),
    "convnet sk": ("convnet", "sk"),
    "convnet non-local": ("convnet", "non-local"),
    "vit window": ("vit", "window"),
    "vit relative": ("vit", "relative-position"),
    "vit axial": ("vit", "axial"),
    "unet": ("unet", "scse"),
}
FITTING = {
    "raw": {"vit-tiny", "vit window", "vit relative", "vit axial", "convnet non-local"},
    "rollout": {"vit-tiny", "vit relative"},
    "relevance": {"vit-tiny", "vit relative"},
    "gates": {"se-convnet", "cbam-resnet", "attention-unet", "convnet eca", "unet"},
    "grad-cam": set(BODIES),
    "hybrid": set(BODIES) - {"convnet without", "convnet sk"},
}


@cache
def build(body):
    name, attention = BODIES[body]
    settings = load_run_config({"model.name": name, "model.attention": attention, "model.width": 8}).model
    return build_model(settings, 1, 3, 32, seed=0, dense="unet" in name)


PAIRS = [(name, body) for name in sorted(FITTING) for body in sorted(FITTING[name])]
OTHERS = [(name, body) for name in sorted(FITTING) for body in sorted(set(BODIES) - FITTING[name])]


@pytest.fixture(params=PAIRS, ids="-".join)
def explained(request):
    name, body = request.param
    return EXPLANATIONS.load(name)(), build(body)


def images(count=3, seed=0):
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_every_explanation_and_model_stands_here():
    assert set(FITTING) == set(EXPLANATIONS)
    assert {model for model, _ in BODIES.values()} >= set(MODELS) - {"resnet-ws"}  # cbam-resnet is one


@pytest.mark.parametrize(("name", "body"), OTHERS)
def test_it_says_why_a_model_does_not_fit(name, body):
    explain = EXPLANATIONS.load(name)()
    reason = explain.fits(build(body))
    assert "use" in reason
    with pytest.raises(AttentionError, match=reason.split(".")[0]):
        explain(build(body), images())


def test_it_keeps_its_promises(explained):
    explain, model = explained
    assert explain.fits(model) == ""
    maps = explain(model, images())
    assert maps.shape == (3, 32, 32)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert bool((maps >= 0).all())
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3))


def test_the_model_is_left_as_it_was(explained):
    explain, model = explained
    model = deepcopy(model).train()
    next(model.modules()).training = True
    before = {key: value.copy() for key, value in model_arrays(model).items()}
    with torch.no_grad():
        explain(model, images())
        assert not torch.is_grad_enabled()
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(np.array_equal(value, model_arrays(model)[key]) for key, value in before.items())


def test_one_by_one_is_as_together_and_twice_the_same(explained):
    explain, model = explained
    together = explain(model, images())
    assert torch.equal(together, explain(model, images()))
    alone = torch.cat([explain(model, images()[place : place + 1]) for place in range(3)])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-6)


def test_frozen_weights_are_explained_alike(explained):
    explain, model = explained
    frozen = deepcopy(model).requires_grad_(False)
    torch.testing.assert_close(explain(frozen, images()), explain(model, images()))


@pytest.mark.parametrize("targets", [torch.tensor([0, 1]), torch.tensor([0, 1, 3]), torch.tensor([-1, 0, 0])])
def test_targets_that_are_no_classes_are_refused(targets):
    explain, model = EXPLANATIONS.load("grad-cam")(), build("se-convnet")
    with pytest.raises(AttentionError, match="one class per image, 0 to 2"):
        explain(model, images(), targets)


def test_volumes_are_refused(explained):
    explain, model = explained
    with pytest.raises(AttentionError, match="cut volumes into slices"):
        explain(model, images()[:, :, None])


def test_weights_that_diverged_are_refused(explained):
    explain, model = explained
    broken = deepcopy(model)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(AttentionError, match="diverged"):
        explain(broken, images())
