"""Every term of guidance: one finite number per image that no other image changes, and a gradient that arrives."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from client.guidance import GUIDANCE
from client.guidance.base import Known
from client.guidance.guidance import Guidance
from common.arrays import model_arrays
from common.attention.anatomy import disc
from common.attention.prior import Prior
from common.attention.schema import schema_of
from common.attention.signature import signatures
from common.config import GuidanceSection, load_run_config
from common.data.base import Batch
from common.models.build import build_model

MODELS = {
    "gates": {"model.name": "convnet", "model.attention": "cbam"},
    "channels": {"model.name": "se-convnet"},
    "tokens": {"model.name": "vit-tiny"},
    "branches and gates": {"model.name": "convnet", "model.attention": "scse"},
}


def make(name, seed=0):
    settings = load_run_config({"model.width": 8, **MODELS[name]}).model
    return build_model(settings, 1, 1, 16, seed=seed).train()


def batch_of(count=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 16, 16, dtype=torch.uint8)
    masks[: count // 2, 3:9, 4:12] = 1
    return Batch(torch.rand(count, 1, 16, 16, generator=random) * 2 - 1, torch.arange(count) % 2, masks)


def known_of(model, **changes):
    """A prior somewhere else than where the model looks, so that every term has something to say."""
    schema = schema_of(model)
    rows = signatures(model, batch_of(40, seed=5).images, schema).numpy()
    shift = np.random.default_rng(1).normal(0, 0.05, schema.length)
    prior = Prior(schema.id, 40, rows.mean(0) + shift, rows.var(0) / 10)
    made = Known(
        model=model,
        schema=schema,
        prior=prior,
        own=rows.mean(0),
        classes=np.stack([rows[:20].mean(0), rows[20:].mean(0)]),
        region=disc(16, 16) * torch.linspace(0, 1, 16),
        flips=False,
        progress=0.5,
        seed=3,
    )
    return replace(made, **changes)


def moved(model):
    """The same model some steps later."""
    later = deepcopy(model)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in later.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return later


@pytest.fixture(params=sorted(GUIDANCE))
def name(request):
    return request.param


@pytest.fixture(params=sorted(MODELS))
def body(request):
    return make(request.param)


def guided(guidance, model, batch):
    with guidance.watching(model) as guide:
        model(batch.images)
        return guide(batch)


def frozen(guidance):
    """A critic that learns from every batch ties images together by what it knows; its own lesson is left out here."""
    for _, term in guidance.terms.values():
        if hasattr(term, "_teach"):
            term._teach = lambda white: None
    return guidance


def test_each_image_has_its_own_number(name, body):
    guidance, later = frozen(Guidance(known_of(body), {name: 1.0})), moved(body)
    batch = batch_of()
    together = guided(guidance, later, batch)
    assert together.shape == (6,)
    assert together.dtype == torch.float32
    assert torch.isfinite(together).all()
    for place in range(6):
        alone = Batch(batch.images[place : place + 1], batch.labels[place : place + 1], batch.masks[place : place + 1])
        torch.testing.assert_close(guided(guidance, later, alone)[0], together[place], rtol=1e-4, atol=1e-5)


def test_the_gradient_reaches_the_weights_and_is_finite(name, body):
    guidance, later = Guidance(known_of(body), {name: 1.0}), moved(body)
    guided(guidance, later, batch_of()).mean().backward()
    grads = [parameter.grad for parameter in later.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert any(grad.abs().max() > 0 for grad in grads)


def test_the_weight_multiplies(name, body):
    later = moved(body)
    once, twice = (guided(frozen(Guidance(known_of(body), {name: weight})), later, batch_of()) for weight in (1.0, 2.0))
    torch.testing.assert_close(2 * once, twice)


def test_a_term_without_what_it_needs_waits(name, body):
    term = GUIDANCE.load(name)
    for need in term.needs:
        assert not Guidance(known_of(body, **{need: None}), {name: 1.0}).terms
    assert not Guidance(known_of(body), {name: 0.0}).terms
    assert Guidance(known_of(body), {name: 1.0}).terms


def test_the_model_is_left_as_it_was(name, body):
    before = {key: value.copy() for key, value in model_arrays(body).items()}
    guidance = Guidance(known_of(body), {name: 1.0})
    state = torch.get_rng_state()
    guided(guidance, body, batch_of())
    assert torch.equal(torch.get_rng_state(), state)
    assert body.training
    assert all(parameter.requires_grad for parameter in body.parameters())
    assert all(np.array_equal(value, model_arrays(body)[key]) for key, value in before.items())
    assert not any(module._forward_hooks for module in body.modules())


def test_every_term_has_a_setting_and_every_setting_a_term():
    section = load_run_config().guidance
    assert set(section.weights()) == set(GUIDANCE)
    assert not any(section.weights().values())
    needing = {name for name in GUIDANCE if "prior" in GUIDANCE.load(name).needs}
    for name in GUIDANCE:
        one = GuidanceSection(**{**section.model_dump(), name: 0.5})
        assert one.needs_prior == (name in needing)
