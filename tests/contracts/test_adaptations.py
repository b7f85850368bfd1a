"""Every method of adaptation on every kind of model: what moves, what comes back, and what is refused."""

from functools import cache

import numpy as np
import pytest
import torch

from client.adaptation import ADAPTATIONS
from client.adaptation.base import Counts, MethodSettings
from client.adaptation.build import build_adaptation
from client.adaptation.measure import measure_source
from client.adaptation.measures import MEASURES
from common.config import ModelSection, TaskSection
from common.data.base import Dataset
from common.errors import AdaptationError, ConfigError, UnknownNameError
from common.models.build import build_model
from common.tasks.build import build_task

SIDE = 16
BODIES = {
    "gates, binary": ("se-convnet", "binary", 2),
    "residual, three classes": ("resnet-ws", "multiclass", 3),
    "tokens, binary": ("vit-tiny", "binary", 2),
    "findings": ("convnet", "multilabel", 3),
    "batch statistics": ("se-convnet", "binary", 2),
    "pixels, three classes": ("unet", "segmentation", 3),
}
LABELLED = {"class_prior", "confusion", "confidence", "fisher"}
"""Fields that speak of classes that exclude one another."""
QUICK = {"views": 3, "population": 4, "capacity": 4, "every": 2}
"""Settings that cost time and change no promise, where a method has them."""


def task_of(kind, classes):
    names = tuple("abcd"[:classes])
    masks = ("ground", *names[1:]) if kind == "segmentation" else ()
    return build_task(TaskSection(name=kind, positive=""), () if masks else names, masks)


def data_of(kind, classes, count=16, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    images = rng.uniform(0, 0.6, (count, 1, SIDE, SIDE)).astype(np.float32)
    images[:, 0, 4:9, 4:9] += (0.4 * labels / classes)[:, None, None].astype(np.float32)
    masks = None
    names = tuple("abcd"[:classes])
    if kind == "segmentation":
        masks = np.zeros((count, SIDE, SIDE), np.uint8)
        masks[:, 4:9, 4:9] = labels[:, None, None]
    return Dataset(
        name="made",
        images=images,
        patients=np.array([str(i) for i in range(count)]),
        sites=np.zeros(count, np.int64),
        site_names=("one",),
        labels=None
        if masks is not None
        else np.eye(classes, dtype=np.uint8)[labels]
        if kind == "multilabel"
        else labels,
        masks=masks,
        classes=() if masks is not None else names,
        mask_classes=("ground", *names[1:]) if masks is not None else (),
    )


@cache
def made(body):
    """A model that is a little less than sure of itself, its task, and what is known of its source."""
    name, kind, classes = BODIES[body]
    task = task_of(kind, classes)
    settings = ModelSection(name=name, width=4, batch_norm=body == "batch statistics")
    model = build_model(settings, 1, task.outputs, SIDE, seed=1, dense=task.dense).eval()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter *= 6
    wants = [name for name in MEASURES if kind != "multilabel" or name not in LABELLED]
    return model, task, measure_source(model, task, data_of(kind, classes), wants)


def stream(count=2, size=5, seed=4):
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(size, 1, SIDE, SIDE, generator=random) * 1.6 - 1 for _ in range(count)]


def settings_for(name, **more):
    known = ADAPTATIONS.load(name).Settings.model_fields
    return {key: value for key, value in {**QUICK, **more}.items() if key in known}


def build(name, body, **more):
    model, _, source = made(body)
    return build_adaptation(name, model, source, settings_for(name, **more))


def fits(name, body):
    model, _, source = made(body)
    return not ADAPTATIONS.load(name).unfit(model, source)


PAIRS = [(name, body) for name in ADAPTATIONS for body in BODIES]
FITTING = [pair for pair in PAIRS if fits(*pair)]
REFUSED = [pair for pair in PAIRS if not fits(*pair)]
ON_FITTING = pytest.mark.parametrize(("name", "body"), FITTING)


def state(method):
    return {key: value.clone() for key, value in method.model.state_dict().items()}


@ON_FITTING
def test_a_stream_moves_what_is_named_and_nothing_else_and_reset_undoes_it_to_the_bit(name, body):
    model, task, _ = made(body)
    shipped = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(5)
    world = torch.get_rng_state()
    method, batches = build(name, body), stream()
    before, start = state(method), method.predict(batches[0])
    first = [method.adapt(batch) for batch in batches]
    assert_probabilities(first, task.probabilities(method.model(batches[0])))
    after, names, counts = state(method), method.adapted(), repr(method.counts)
    assert set(names) <= set(before)
    assert same(before, after, set(before) - set(names))

    assert torch.equal(method.predict(batches[1]), method.predict(batches[1]))
    assert same(after, state(method)), "predict learns nothing"
    assert repr(method.counts) == counts
    assert not method.model.training

    method.reset()
    assert method.counts == Counts()
    assert same(before, state(method))
    assert torch.equal(method.predict(batches[0]), start)

    assert torch.equal(torch.get_rng_state(), world), "nothing global is drawn from"
    torch.manual_seed(6)
    again = [method.adapt(batch) for batch in batches]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert same(after, state(method))
    assert same(shipped, model.state_dict()), "the model that was given stays as it was"


def same(left, right, keys=None):
    return all(torch.equal(left[key], right[key]) for key in (left if keys is None else keys))


def assert_probabilities(answers, like):
    for answer in answers:
        assert answer.shape == like.shape
        assert answer.dtype == like.dtype
        assert answer.isfinite().all()
        assert (answer >= 0).all()
        assert (answer <= 1).all()
        assert not answer.requires_grad


@ON_FITTING
def test_batches_of_one_and_extreme_images_stay_finite(name, body):
    method = build(name, body)
    black, white = torch.full((1, 1, SIDE, SIDE), -1.0), torch.ones(1, 1, SIDE, SIDE)
    for images in (*stream(1, 1), white, black.expand(4, -1, -1, -1)):
        answer = method.adapt(images)
        assert answer.isfinite().all()
        assert len(answer) == len(images)
    assert all(value.isfinite().all() for value in method.model.state_dict().values())


@pytest.mark.parametrize("name", [name for name in ADAPTATIONS if ADAPTATIONS.load(name).dense and name != "bn-adapt"])
def test_a_single_logit_per_pixel_is_a_choice_of_two(name):
    task = task_of("segmentation", 2)
    model = build_model(ModelSection(name="unet", width=4), 1, 1, SIDE, seed=1, dense=True).eval()
    source = measure_source(model, task, data_of("segmentation", 2, 4), ADAPTATIONS.load(name).needs)
    answer = build_adaptation(name, model, source, settings_for(name)).adapt(stream()[0][:2])
    assert_probabilities([answer], task.probabilities(model(stream()[0][:2])))


@pytest.mark.parametrize(("name", "body"), REFUSED)
def test_what_does_not_fit_is_refused_with_those_that_do(name, body):
    with pytest.raises(AdaptationError, match=r"Methods that fit this model: .*none"):
        build(name, body)


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_its_entry_is_whole(name):
    method = ADAPTATIONS.load(name)
    assert method.name == name
    assert set(method.needs) <= set(MEASURES)
    assert issubclass(method.Settings, MethodSettings)
    assert all(field.description for field in method.Settings.model_fields.values())
    assert any(fits(name, body) for body in BODIES), "no model that ships can use it"


@pytest.mark.parametrize("name", [name for name in ADAPTATIONS if ADAPTATIONS.load(name).needs])
def test_what_it_needs_is_asked_for(name):
    body = next(body for body in BODIES if fits(name, body))
    model, task, _ = made(body)
    with pytest.raises(AdaptationError, match=f"needs .*{ADAPTATIONS.load(name).needs[0]}"):
        build_adaptation(name, model, measure_source(model, task, data_of(*BODIES[body][1:])))


def test_none_is_the_task_on_the_model_itself():
    for body in BODIES:
        model, task, _ = made(body)
        with torch.no_grad():
            assert torch.equal(build("none", body).adapt(stream()[0]), task.probabilities(model(stream()[0])))


def test_settings_are_checked():
    model, _, source = made("gates, binary")
    with pytest.raises(ConfigError, match="Did you mean 'learning-rate'"):
        build_adaptation("tent", model, source, {"learning-rat": 1})
    with pytest.raises(ConfigError, match="greater than 0"):
        build_adaptation("tent", model, source, {"learning-rate": -1})
    with pytest.raises(UnknownNameError, match="Did you mean 'tent'"):
        build_adaptation("tend", model, source)
