"""Personal parameters and the lean on anatomy: nothing changes at first, and then exactly what the formula says."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.attention.anatomy import AnatomyBias, at_keys, disc, lean_on_anatomy
from common.attention.base import AttentionModel, AttentionSite
from common.attention.personal import GateScale, HeadTemperature, personal_parameters, personalise
from common.attention.recorder import Recorder
from common.config import load_run_config
from common.errors import AttentionError
from common.models.build import build_model
from common.models.norms import norm_parameters

NAMES = ("se-convnet", "vit-tiny", "cbam-resnet", "attention-unet")


def built(name, **changes):
    values = {"model.name": name, "model.width": 8, **{f"model.{key}": value for key, value in changes.items()}}
    return build_model(load_run_config(values).model, 1, 1, 32, seed=0, dense="unet" in name)


def images(count=3):
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def maps_of(model):
    with torch.no_grad(), Recorder(model.eval()) as recorder:
        logits = model(images())
        return logits, recorder.take()


@pytest.mark.parametrize("name", NAMES)
def test_at_first_nothing_changes(name):
    plain, personal = built(name), built(name)
    personalise(personal)
    (logits, maps), (again, others) = maps_of(plain), maps_of(personal)
    torch.testing.assert_close(logits, again)
    for site, map_ in maps.items():
        torch.testing.assert_close(map_, others[site])
    names = personal_parameters(personal)
    assert names
    kept = {key: value for key, value in personal.state_dict().items() if key not in names}
    assert list(kept) == list(plain.state_dict())
    assert all(torch.equal(left, right) for left, right in zip(kept.values(), plain.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_few_numbers_are_personal_and_each_is_learnt(name):
    model = built(name, **{"personal-attention": True})
    names = personal_parameters(model)
    size = sum(model.state_dict()[key].numel() for key in names)
    assert 0 < size < 300
    assert not set(names) & set(norm_parameters(model))
    model.train()(images()).square().sum().backward()
    own = dict(model.named_parameters())
    assert all(own[key].grad.abs().sum() > 0 for key in names)


def test_the_settings_build_it_and_the_default_does_not():
    assert personal_parameters(built("vit-tiny")) == ()
    assert len(personal_parameters(built("vit-tiny", **{"personal-attention": True}))) == 4
    both = built("vit-tiny", **{"personal-attention": True, "anatomy-bias": "disc"})
    assert sum("beta" in key for key in both.state_dict()) == 4
    assert not any("lean" in key for key in both.state_dict())


@pytest.mark.parametrize("name", ["vit-tiny", "se-convnet"])
def test_a_map_is_that_of_scaled_scores(name):
    """A ∝ e^(τ s): the map to the power τ, renormalised. A gate: sigmoid(a logit(g) + b)."""
    plain, personal = built(name), built(name)
    personalise(personal)
    first = plain.attention_sites[0]
    with torch.no_grad():
        for module in personal.get_submodule(first.module).modules():
            if isinstance(module, HeadTemperature):
                module.log.copy_(torch.tensor([0.5, -0.5, 0.0, 1.0]))
            if isinstance(module, GateScale):
                module.scale.fill_(2.0), module.bias.fill_(-0.3)
    before, after = maps_of(plain)[1][first.name], maps_of(personal)[1][first.name]
    if name == "vit-tiny":
        powered = before ** torch.tensor([0.5, -0.5, 0.0, 1.0]).exp()[:, None, None]
        wanted = powered / powered.sum(-1, keepdim=True)
    else:
        wanted = (2.0 * before.logit() - 0.3).sigmoid()
    torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", ["personal-attention", "anatomy-bias"])
def test_a_model_of_linear_attention_alone_is_told(change):
    """Its map is a share of a sum: no temperature changes it, and a score that leans would turn negative."""
    with pytest.raises(AttentionError, match=f"Set `model.{change}` to"):
        built("vit", **{"attention": "linear", change: {"anatomy-bias": "disc"}.get(change, True)})


@pytest.mark.parametrize("hidden", [-torch.inf, torch.finfo(torch.float32).min])
def test_hidden_scores_stay_hidden_and_spoil_no_gradient(hidden):
    """By hand: of [1, hidden, 0] at t = log 2 the weights are those of [2, 0], and dA₀/dt = A₀ A₂ · 2 · 1."""
    temperature = HeadTemperature(1, 1)
    with torch.no_grad():
        temperature.log.fill_(math.log(2))
    scores = torch.tensor([[[[1.0, hidden, 0.0], [hidden] * 3]]])[:, :, : 1 if hidden == -torch.inf else 2]
    weights = temperature(scores).softmax(-1)
    first = 1 / (1 + math.exp(-2))
    torch.testing.assert_close(weights[0, 0, 0], torch.tensor([first, 0.0, 1 - first]))
    if len(weights[0, 0]) == 2:  # nothing real in this row: it stays whole
        torch.testing.assert_close(weights[0, 0, 1], torch.full((3,), 1 / 3))
    weights[0, 0, 0, 0].backward()
    assert temperature.log.grad.item() == pytest.approx(2 * first * (1 - first), rel=1e-5)


def loop_gradients(model, batch):
    found = []
    for place in range(len(batch)):
        model.zero_grad()
        model(batch[place : place + 1]).sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    return found


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", ["se-convnet", "vit-tiny"])
def test_per_sample_gradients_are_those_of_one_at_a_time(name):
    from opacus import GradSampleModule

    changes = {"personal-attention": True}
    if name == "vit-tiny":
        changes["anatomy-bias"] = "disc"
    model = built(name, **changes)
    wanted = loop_gradients(deepcopy(model), images())
    sampled = GradSampleModule(model, loss_reduction="sum")
    sampled(images()).sum().backward()
    for key, parameter in model.named_parameters():
        for place in range(3):
            torch.testing.assert_close(parameter.grad_sample[place], wanted[place][key], rtol=1e-3, atol=1e-5)


# ---- anatomy


def test_scores_lean_by_beta_log_m():
    region = torch.tensor([1.0, 0.5, 0.0])
    bias = AnatomyBias(region)
    scores = torch.zeros(1, 1, 3, 3)
    wanted = 0.5 * torch.tensor([1.001, 0.501, 0.001]).log()
    torch.testing.assert_close(bias(scores)[0, 0], wanted.expand(3, 3))


def test_the_region_at_the_keys():
    region = torch.zeros(4, 4)
    region[:2, :2] = 1
    region[0, 2] = 1
    assert at_keys(region, (2, 2), True).tolist() == [1.0, 1.0, 0.25, 0.0, 0.0]
    assert at_keys(disc(16, 16), (4, 4), False)[5] == 1.0


def test_attention_moves_into_the_disc_and_none_is_lost():
    plain, leaning = built("vit-tiny"), built("vit-tiny", **{"anatomy-bias": "disc"})
    inside = at_keys(disc(32, 32), (8, 8), True)
    for left, right in zip(maps_of(plain)[1].values(), maps_of(leaning)[1].values(), strict=True):
        assert (right * inside).sum() > (left * inside).sum()
        torch.testing.assert_close(right.sum(-1), torch.ones_like(right.sum(-1)))


def test_beta_is_learnt():
    model = built("vit-tiny", **{"anatomy-bias": "disc"})
    model(images()).square().sum().backward()
    betas = [p for name, p in model.named_parameters() if name.endswith("beta")]
    assert len(betas) == 4
    assert all(beta.grad.abs().sum() > 0 for beta in betas)


def test_models_without_such_attention_are_told():
    with pytest.raises(AttentionError, match="could lean on anatomy"):
        lean_on_anatomy(built("se-convnet"), disc(32, 32))

    class Bare(AttentionModel):
        def __init__(self):
            super().__init__()
            self.seen = nn.Identity()
            self.attention_sites = (AttentionSite("x", "channel-gate", "seen"),)

    with pytest.raises(AttentionError, match="no attention site of Bare"):
        personalise(Bare())


def test_the_fused_kernel_gives_way():
    """In training nobody listens: the temperature must still count."""
    model = built("vit-tiny", **{"personal-attention": True}).train()
    before = model(images())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in personal_parameters(model):
                parameter.fill_(2.0)
    assert not torch.allclose(before, model(images()))
    with Recorder(model) as recorder:
        model(images())
        recorder.take()
    after = model(images())
    assert not torch.allclose(before, after)
    assert F.mse_loss(after, model(images())) == 0
