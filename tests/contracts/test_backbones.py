"""Every backbone with every layer of ATTENTION that fits it. A new layer adds nothing."""

from collections import Counter

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from torch.nn import functional as F

from common.attention import ATTENTION
from common.attention.health import HealthMeter, health_names
from common.attention.maps import attention_maps, has_place
from common.attention.projection import LONGEST
from common.attention.recorder import Recorder
from common.attention.signature import SignatureMeter, schema_of, signatures
from common.config import ModelSection
from common.errors import AttentionError, ConfigError, UnknownNameError
from common.models.build import build_model
from common.models.placement import NONE, fits
from common.models.unet import volume_unet
from tests.fed_items import fed, noisy

SIZE, VOLUME, IMAGES = 32, (16, 24, 16), 3
SPOTS = {
    ("convnet", ""): ("classifier", 2),
    ("resnet-ws", ""): ("classifier", 2),
    ("vit", ""): ("tokens", 2),
    ("abmil", ""): ("bag", 1),
    ("unet", "skip"): ("skip", 2),
    ("unet", "block"): ("block", 2),
    ("volume", "skip"): ("skip", 3),
    ("volume", "block"): ("block", 3),
}
QUICK = {("convnet", "", "cbam"), ("resnet-ws", "", "self-attention"), ("vit", "", "se"), ("unet", "skip", "se")}
QUICK |= {("abmil", "", "gated-abmil")}
CASES = [
    pytest.param(
        (*body, name),
        id="-".join((*body, name)).replace("--", "-"),
        marks=() if (*body, name) in QUICK else pytest.mark.slow,
    )
    for body, spot in SPOTS.items()
    for name in ATTENTION
    if fits(name, *spot)
]


def make(body, placement, attention, seed=1):
    if body != "volume":
        section = ModelSection(name=body, width=8, attention=attention, placement=placement)
        channels, size = fed(body, 1, SIZE)
        return build_model(section, channels, 2, size, seed, dense=body == "unet")
    section = ModelSection(name="unet", width=8, attention=attention, placement=placement)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return volume_unet(section, 1, 2, VOLUME)


def pictures(body, count=IMAGES, seed=2):
    if body == "abmil":
        return noisy(body, count, seed=seed)
    source = torch.Generator().manual_seed(seed)
    size = VOLUME if body == "volume" else (SIZE, SIZE)
    coarse = torch.rand(count, 1, *(side // 4 for side in size), generator=source) * 2 - 1
    return F.interpolate(coarse, size=size, mode="trilinear" if body == "volume" else "bilinear")


def unsettled(model):
    """Move what starts at zero or one, as layers do whose maps start alike everywhere."""
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source) * 0.02)
    return model


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def test_answers_are_finite_and_every_site_fires_once_with_its_shape(case):
    model, images = make(*case).eval(), pictures(case[0])
    sites = model.attention_sites
    assert sites
    assert max(Counter(site.name for site in sites).values()) == 1
    with Recorder(model) as recorder, torch.no_grad():
        logits = model(images)
        assert list(recorder.take()) == [site.name for site in sites]
    assert logits.shape == ((IMAGES, 2, *images.shape[2:]) if model.dense else (IMAGES, 2))
    assert logits.isfinite().all()
    torch.testing.assert_close(model(images), logits, atol=1e-5, rtol=1e-5)


def test_what_a_channel_gate_scales_can_be_seen(case):
    model, images = make(*case).eval(), pictures(case[0])
    seen = {}
    gates = [site for site in model.attention_sites if site.kind == "channel-gate" and site.features]
    for site in gates:
        model.get_submodule(site.features).register_forward_hook(
            lambda _, __, output, key=site.features: seen.update({key: output})
        )
    with Recorder(model) as recorder, torch.no_grad():
        model(images)
        found = recorder.take()
    for site in gates:
        assert seen[site.features].ndim == images.ndim
        assert seen[site.features].shape[:2] == found[site.name].shape


def test_no_parameter_is_dead(case):
    """At least in one of five draws: of a gate's four hidden units one draw in sixteen leaves all asleep."""
    asleep = None
    for seed in range(1, 6):
        model = unsettled(make(*case, seed))
        model(pictures(case[0])).square().sum().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
        here = {key for key, parameter in model.named_parameters() if not parameter.grad.any()}
        asleep = here if asleep is None else asleep & here
        if not asleep:
            break
    assert not asleep


@pytest.mark.filterwarnings(
    "ignore:There is a performance drop", "ignore:Full backward hook", "ignore:Using a non-full"
)
def test_per_sample_gradients_of_opacus_equal_a_loop(case):
    model, images = unsettled(make(*case)).double().train(), pictures(case[0]).double()
    expected = []
    for index in range(IMAGES):
        model.zero_grad()
        model(images[index : index + 1]).square().sum().backward()
        expected.append({key: parameter.grad.clone() for key, parameter in model.named_parameters()})
    model.zero_grad()
    engine = GradSampleModule(model, batch_first=True, loss_reduction="sum", strict=True)
    engine(images).square().sum().backward()
    for key, parameter in model.named_parameters():
        wanted = torch.stack([row[key] for row in expected])
        torch.testing.assert_close(parameter.grad_sample, wanted, atol=1e-9, rtol=1e-6)


def test_the_signature_is_bounded_and_sees_the_image(case):
    model, images = unsettled(make(*case)).eval(), pictures(case[0])
    schema = schema_of(model)
    rows = signatures(model, images, schema)
    assert schema.entries <= LONGEST
    assert rows.isfinite().all()
    assert rows.min() >= 0
    assert 0.1 < rows.norm(dim=1).max() <= 1 + 1e-12
    assert (rows[0] - rows[1]).norm() > 1e-6
    meter = SignatureMeter(model)
    meter.add(images[:2], ["a", "b"])
    meter.add(images[2:], ["a"])
    means = torch.stack([(rows[0] + rows[2]) / 2, rows[1]])
    assert meter.finish().patients == 2
    np.testing.assert_allclose(meter.finish().total, means.sum(0), atol=1e-5)
    np.testing.assert_allclose(meter.finish().squares, means.square().sum(0), atol=1e-5)


def test_what_has_a_place_is_shown_and_judged_there(case):
    model, images = make(*case).eval(), pictures(case[0])
    maps = attention_maps(model, images)
    axes = images.ndim - 2
    assert list(maps) == [site.name for site in model.attention_sites if has_place(site, axes)]
    for found in maps.values():
        assert found.shape == (IMAGES, *images.shape[2:])
        assert found.min() >= 0
        torch.testing.assert_close(found.flatten(1).sum(1), torch.ones(IMAGES))
    with HealthMeter(model, groups=1) as meter, torch.no_grad():
        model(images)
        meter.note(["a", "b", "c"], [0, 0, 0])
    sums = meter.finish()
    assert len(sums.mean) == len(health_names(model))
    for name, value in sums.mean.items():
        assert 0 <= value <= 1, name


def test_one_image_does_not_see_the_others(case):
    model, images = make(*case).train(), pictures(case[0])
    changed = images.clone()
    changed[1:] = -images[1:].flip(0)
    torch.testing.assert_close(model(changed)[0], model(images)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("body", list(SPOTS), ids="-".join)
def test_without_attention_there_is_an_answer_and_no_site(body):
    model = make(*body, NONE)
    assert model.attention_sites == ()
    logits = model(pictures(body[0]))
    assert (logits[0] - logits[1]).abs().max() > 1e-4
    logits.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())
    with pytest.raises(AttentionError, match=r"model\.attention"):
        Recorder(model)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["skip", "block"])
def test_a_volume_unet_overfits_two_volumes(placement):
    model, volumes = make("volume", placement, "se"), pictures("volume", 2)
    target = (volumes[:, 0] > 0).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(model(volumes), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]


@pytest.mark.parametrize("body", list(SPOTS), ids="-".join)
def test_an_unknown_layer_is_refused_with_the_nearest_name(body):
    with pytest.raises(UnknownNameError, match=r"Did you mean 'cbam'\?.*none"):
        make(*body, "cbamm")


@pytest.mark.parametrize("body", list(SPOTS), ids="-".join)
def test_a_layer_that_cannot_stand_there_is_refused_with_those_that_can(body):
    spot = SPOTS[body]
    for name in ATTENTION:
        if not fits(name, *spot):
            with pytest.raises(ConfigError, match=rf"'{name}'.*Allowed there: .*none.*model\.attention"):
                make(*body, name)


@pytest.mark.parametrize("body", ["convnet", "resnet-ws", "vit"])
def test_a_model_without_skips_refuses_a_layer_on_them(body):
    with pytest.raises(ConfigError, match="no skip connections"):
        make(body, "skip", "se")
