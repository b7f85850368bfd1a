"""What every model of MODELS promises."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from common.attention.base import AttentionModel, Switchable
from common.config import ModelSection, load_run_config
from common.errors import ConfigError
from common.models import BAG_MODELS, MODELS
from common.models.build import build_model
from common.models.norms import norm_parameters
from tests.fed_items import fed, smooth

WIDTH = load_run_config().model.width
ONCE = sorted({target: name for name, target in reversed(list(MODELS.items()))}.values())
"""One name for each builder: a body and its preset are the same model, as `test_presets.py` shows."""
OF_IMAGES = [name for name in ONCE if name not in BAG_MODELS]
DENSE = {name for name in OF_IMAGES if MODELS.load(name)(ModelSection(name=name, width=8), 1, 1, 32).dense}
SHAPES = [
    (name, channels, size)
    for name in ONCE
    for channels in (1, 3)
    for size in ((28,) if name in BAG_MODELS else (28, 48, 64, *((96,) if name in DENSE else ())))
]


def make(name, channels=1, outputs=2, size=28, *, width=8, seed=1):
    channels, size = fed(name, channels, size)
    return build_model(ModelSection(name=name, width=width), channels, outputs, size, seed, dense=name in DENSE)


@pytest.fixture(params=ONCE)
def name(request):
    return request.param


@pytest.mark.parametrize(("name", "channels", "size"), SHAPES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_shapes(name, channels, size, outputs):
    model = make(name, channels, outputs, size).eval()
    assert isinstance(model, AttentionModel)
    with torch.no_grad():
        images = smooth(name, 2, channels, size)
        logits, features = model(images), model.features(images)
    assert logits.shape == ((2, outputs, size, size) if model.dense else (2, outputs))
    assert features.shape[0] == 2
    assert features.shape[2:] == ((size, size) if model.dense else ())
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("size", [16, 45, 130, 256])
def test_any_side_from_16_to_256(name, size):
    model = make(name, size=size).eval()
    with torch.no_grad():
        assert model(smooth(name, 1, size=size)).shape[1:] == ((2, size, size) if model.dense else (2,))


def test_the_head_reads_the_features(name):
    model = make(name).eval()
    images = smooth(name, 2)
    torch.testing.assert_close(model.head(model.features(images)), model(images))


def test_overfits_eight_images(name):
    images = smooth(name, 8)
    model = make(name, width=WIDTH)
    target = (images[:, 0] > 0).long() if model.dense else torch.arange(8) % 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        loss = F.cross_entropy(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_state_dict_round_trip(name):
    images, model, other = smooth(name, 2), make(name).eval(), make(name, seed=9).eval()
    assert not torch.equal(model(images), other(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(images), other(images))


def test_same_seed_same_arrays_and_global_state_untouched(name):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = make(name).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(12)
    second, third = make(name).state_dict(), make(name, seed=2).state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)


def test_no_batch_norm_no_buffers_no_parameter_beside_a_child(name):
    model = make(name)
    assert not list(model.buffers())
    for path, module in model.named_modules():
        assert not isinstance(module, nn.modules.batchnorm._NormBase), path
        assert not (list(module.parameters(recurse=False)) and list(module.children())), path


@pytest.mark.parametrize("channels", [1, 3])
def test_small_at_the_default_width(name, channels):
    model = make(name, channels, 1, 48, width=WIDTH)
    limit = 100_000 if name == "se-convnet" else 400_000
    assert sum(parameter.numel() for parameter in model.parameters()) < limit


def test_attention_sites_fire_once_with_their_declared_shape(name):
    model = make(name, size=48).eval()
    sites = model.attention_sites
    assert sites
    assert max(Counter(site.name for site in sites).values()) == 1
    assert max(Counter(site.module for site in sites).values()) == 1
    seen = {site.name: [] for site in sites}
    for site in sites:
        module = model.get_submodule(site.module)
        module.register_forward_hook(lambda _, __, output, key=site.name: seen[key].append(output))
    for module in model.modules():
        if isinstance(module, Switchable):
            module.explicit = True
    with torch.no_grad():
        model(smooth(name, 3, size=48))
    for site in sites:
        (maps,) = seen[site.name]
        check_map(site, maps)


def check_map(site, maps):
    assert maps.shape[0] == 3
    if site.kind == "pooling":
        torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]), atol=1e-5, rtol=0)
        assert maps.min() >= 0
        return
    assert maps.min() > 0
    assert maps.max() < 1
    if site.kind == "channel-gate":
        assert maps.ndim == 2
    elif site.kind in ("spatial-gate", "attention-gate"):
        assert maps.ndim == 4
        assert maps.shape[1] == 1
    else:
        tokens = site.grid[0] * site.grid[1] + site.cls
        assert maps.shape[2:] == (tokens, tokens)
        torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]), atol=1e-5, rtol=0)
    assert (maps[0] - maps[1]).abs().max() > 0


def test_watching_the_maps_changes_no_answer(name):
    model, images = make(name).eval(), smooth(name, 2)
    before = model(images)
    for module in model.modules():
        if isinstance(module, Switchable):
            module.explicit = True
    torch.testing.assert_close(model(images), before, atol=1e-5, rtol=1e-5)


def test_no_parameter_is_dead(name):
    model = make(name)
    model(smooth(name, 4)).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # the fused kernel under vmap: slower, not wrong
def test_per_sample_gradients_equal_a_loop(name):
    model, images = make(name).double(), smooth(name, 3, seed=5).double()

    def loss(parameters, image):
        return functional_call(model, parameters, (image[None],)).square().mean()

    together = vmap(grad(loss), in_dims=(None, 0))(dict(model.named_parameters()), images)
    for index in range(3):
        model.zero_grad()
        model(images[index : index + 1]).square().mean().backward()
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(together[key][index], parameter.grad, atol=1e-7, rtol=1e-6)


def test_one_image_does_not_see_the_others(name):
    model = make(name).train()
    images = smooth(name, 4)
    changed = images.clone()
    changed[1:] = -images[1:].flip(0)
    torch.testing.assert_close(model(changed)[0], model(images)[0], atol=1e-5, rtol=1e-5)


def test_norm_parameters_are_some_but_not_all(name):
    model = make(name)
    names = norm_parameters(model)
    assert names
    assert set(names) < set(model.state_dict())
    assert list(names) == [key for key in model.state_dict() if key in names]
    assert not any("head" in key for key in names)


def test_a_model_of_the_wrong_kind_is_refused(name):
    with pytest.raises(ConfigError, match=r"[Ss]et `(model|task)\.name` to"):
        build_model(ModelSection(name=name, width=8), *fed(name)[:1], 1, fed(name)[1], 0, dense=name not in DENSE)


def test_a_model_of_images_refuses_bags_and_the_reverse(name):
    section = ModelSection(name=name, width=8)
    channels, size = (1, 28) if name in BAG_MODELS else fed(BAG_MODELS[0])
    takes = (
        "bags of instances, and the data are images of 28" if name in BAG_MODELS else "images, and the data are bags"
    )
    with pytest.raises(ConfigError, match=rf"model '{name}' takes {takes}.*Set `model\.name` to"):
        build_model(section, channels, 1, size, 0)


@pytest.mark.parametrize(("channels", "outputs", "size"), [(2, 1, 28), (4, 1, 28), (1, 0, 28), (1, -1, 28), (1, 1, 4)])
def test_impossible_shapes_are_refused(name, channels, outputs, size):
    with pytest.raises(ConfigError):
        build_model(ModelSection(name=name, width=8), channels, outputs, size, 1, dense=name in DENSE)
