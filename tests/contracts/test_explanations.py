"""Every explanation on every model: it keeps its promises, or says why the model does not fit."""

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch

from common.arrays import model_arrays
from common.config import load_run_config
from common.errors import AttentionError, ConfigError
from common.explanations import EXPLANATIONS
from common.models import BAG_MODELS, MODELS
from common.models.build import build_model
from tests.fed_items import fed, noisy

BODIES = {
    **{name: (name, "") for name in ("se-convnet", "vit-tiny", "cbam-resnet", "attention-unet")},
    "convnet without": ("convnet", "none"),
    "convnet eca": ("convnet", "eca"),
    "convnet sk": ("convnet", "sk"),
    "convnet bags": ("convnet", "token-pooling"),
    "convnet non-local": ("convnet", "non-local"),
    "vit window": ("vit", "window"),
    "vit relative": ("vit", "relative-position"),
    "vit axial": ("vit", "axial"),
    "vit without": ("vit", "none"),
    "vit pairs": ("vit", "cross-attention"),
    "vit neighbourhood": ("vit", "neighbourhood"),
    "vit top-k": ("vit", "top-k"),
    "unet": ("unet", "scse"),
}
FITTING = {
    "raw": {
        "vit-tiny",
        "vit window",
        "vit relative",
        "vit axial",
        "vit neighbourhood",
        "vit top-k",
        "convnet non-local",
    },
    "rollout": {"vit-tiny", "vit relative", "vit top-k"},
    "relevance": {"vit-tiny", "vit relative", "vit top-k"},
    "gates": {"se-convnet", "cbam-resnet", "attention-unet", "convnet eca", "unet"},
    "grad-cam": set(BODIES),
    "hybrid": set(BODIES) - {"convnet without", "convnet sk", "convnet bags", "vit without", "vit pairs"},
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
    assert {model for model, _ in BODIES.values()} >= set(MODELS) - {"resnet-ws", *BAG_MODELS}  # cbam-resnet is one


@pytest.mark.parametrize("name", sorted(FITTING))
@pytest.mark.parametrize("body", BAG_MODELS)
def test_bags_have_no_pixels_to_explain(name, body):
    channels, size = fed(body)
    model = build_model(load_run_config({"model.name": body, "model.width": 8}).model, channels, 3, size, seed=0)
    with pytest.raises(ConfigError, match="an explanation works on pixels, and the data are bags"):
        EXPLANATIONS.load(name)()(model, noisy(body, 3))


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
    model, asked, calls = deepcopy(model), images(), []
    for place, module in enumerate(model.modules()):
        module.training = place % 2 == 0
    for place, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(place % 3 > 0)
        parameter.grad = torch.full_like(parameter, place)
    model.register_forward_hook(lambda *inputs: calls.append(1))
    explicit = [getattr(module, "explicit", None) for module in model.modules()]
    before = {key: value.copy() for key, value in model_arrays(model).items()}
    with torch.no_grad():
        explain(model, asked, torch.tensor([0, 1, 2]))
        assert not torch.is_grad_enabled()
    assert calls
    assert [module.training for module in model.modules()] == [
        place % 2 == 0 for place in range(len(list(model.modules())))
    ]
    for place, parameter in enumerate(model.parameters()):
        assert parameter.requires_grad == (place % 3 > 0)
        assert torch.equal(parameter.grad, torch.full_like(parameter, place))
    assert [getattr(module, "explicit", None) for module in model.modules()] == explicit
    assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()) == 1
    assert all(np.array_equal(value, model_arrays(model)[key]) for key, value in before.items())
    assert torch.equal(asked, images())
    assert not asked.requires_grad


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


def test_where_gradients_are_off_it_says_the_same(explained):
    explain, model = explained
    with torch.inference_mode():
        found = explain(model, images())
    torch.testing.assert_close(found, explain(model, images()))


@pytest.mark.parametrize("targets", [[0, 1], [0, 1, 3], [-1, 0, 0], [[0, 1, 2]], [0.0, 1.0, 2.0], [True, False, True]])
def test_targets_that_are_no_classes_are_refused(explained, targets):
    explain, model = explained
    with pytest.raises(AttentionError, match="one class per image"):
        explain(model, images(), torch.tensor(targets))
    assert not any(module._forward_hooks for module in model.modules())


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
