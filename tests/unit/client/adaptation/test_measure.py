"""What is measured at source sites: sums of halves are the sum of the whole, and each field by hand."""

import numpy as np
import pytest
import torch

from client.adaptation.measure import add_sums, measure_source, measure_sums, passes, source_of
from client.adaptation.measures import MEASURES
from common.config import ModelSection, TaskSection
from common.data.base import Dataset
from common.errors import AdaptationError, DataError
from common.models.build import build_model
from common.tasks.build import build_task


def data(count=20, seed=0, **changes):
    rng = np.random.default_rng(seed)
    given = {
        "name": "made",
        "images": rng.uniform(0, 1, (count, 1, 16, 16)).astype(np.float32),
        "patients": np.array([str(i) for i in range(count)]),
        "sites": np.zeros(count, np.int64),
        "site_names": ("one",),
        "labels": np.arange(count) % 3,
        "classes": ("a", "b", "c"),
    }
    return Dataset(**{**given, **changes})


@pytest.fixture(scope="module")
def parts():
    task = build_task(TaskSection(name="multiclass", positive=""), ("a", "b", "c"), ())
    return build_model(ModelSection(name="se-convnet", width=4), 1, 3, 16, seed=0).eval(), task


ADDITIVE = [name for name in MEASURES if name != "null"]
"""The null is between sites: two halves have one, and the whole has none."""


def same(left, right):
    for name in ADDITIVE:
        one, two = getattr(left, name), getattr(right, name)
        pairs = one.items() if isinstance(one, dict) else {"": one}.items()
        for key, value in pairs:
            other = two[key] if key else two
            fields = value.__slots__ if hasattr(value, "__slots__") else ()
            for a, b in [(getattr(value, f), getattr(other, f)) for f in fields] or [(value, other)]:
                torch.testing.assert_close(a, b)


def test_sums_of_two_sites_are_those_of_all_images_together(parts):
    model, task = parts
    whole = data()
    halves = [whole.subset(np.arange(7)), whole.subset(np.arange(7, 20))]
    source = source_of({}, task)
    for names in passes(list(MEASURES)):
        found = add_sums([measure_sums(model, task, half, names, source) for half in halves])
        source = source_of(found, task, source)
    assert source.images == 20
    same(source, measure_source(model, task, whole, list(MEASURES)))


def test_fields_by_hand(parts):
    model, task = parts
    source = measure_source(model, task, data(), ["class_prior", "confusion", "features"])
    images, labels = data().batch(np.arange(20), torch.device("cpu")).images, torch.arange(20) % 3
    with torch.no_grad():
        p, features = model(images).softmax(1).double(), model.features(images)
    torch.testing.assert_close(source.class_prior, torch.tensor([7, 7, 6]).double() / 20)
    wanted = torch.stack([p[labels == k].mean(0) for k in range(3)])
    torch.testing.assert_close(source.confusion, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(source.features.mean, features.mean(0))
    torch.testing.assert_close(source.features.variance, features.var(0, unbiased=False), rtol=1e-4, atol=1e-6)


def test_confidence_and_fisher_by_hand(parts):
    model, task = parts
    source = measure_source(model, task, data(), ["confidence", "fisher"])
    images = data().batch(np.arange(20), torch.device("cpu")).images
    with torch.no_grad():
        sure = model(images).softmax(1).max(1).values
    torch.testing.assert_close(source.confidence, torch.histc(sure, 100, 0, 1).double())
    name = "stage2.second.bias"
    squares = torch.zeros_like(model.get_parameter(name))
    for image in images:
        logits = model(image[None])
        (slope,) = torch.autograd.grad(
            torch.nn.functional.cross_entropy(logits, logits.argmax(1)), model.get_parameter(name)
        )
        squares += slope.square()
    torch.testing.assert_close(source.fisher[name], squares / 20, rtol=1e-4, atol=1e-9)


def test_a_class_without_images_knows_nothing(parts):
    model, task = parts
    source = measure_source(model, task, data(labels=np.zeros(20, np.int64)), ["confusion", "class_prior"])
    torch.testing.assert_close(source.confusion[1], torch.full((3,), 1 / 3).double())
    assert source.class_prior.tolist() == [1, 0, 0]


def test_the_model_is_left_as_it_was(parts):
    model, task = parts
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    measure_source(model, task, data(), list(MEASURES))
    assert model.training
    model.eval()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_large_statistics_go_where_the_model_is(parts):
    """No kernel runs on the device `meta`, but what was moved there says so."""
    model, task = parts
    source = measure_source(
        model, task, data(), [name for name in MEASURES if not MEASURES[name].after] + ["histograms"]
    )
    there = source.beside(torch.device("meta"))
    moved = [*there.fisher.values(), there.histograms.low, there.histograms.shares, there.features.variance]
    moved += [moments.mean for moments in there.activations.values()]
    assert {value.device.type for value in moved} == {"meta"}
    assert there.confusion.device.type == "cpu"
    assert source.features.mean.device.type == "cpu"
    assert there.images == source.images


def test_what_cannot_be_measured_or_added_is_refused(parts):
    model, task = parts
    with pytest.raises(AdaptationError, match="Did you mean 'confusion'"):
        measure_source(model, task, data(), ["confusions"])
    with pytest.raises(DataError, match="no labels"):
        measure_source(model, task, data(labels=None), ["class_prior"])
    one, two = (measure_sums(model, task, data(), [name]) for name in ("class_prior", "features"))
    with pytest.raises(DataError, match="different things"):
        add_sums([one, two])
