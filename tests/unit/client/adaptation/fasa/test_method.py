"""FASA on a small trained model: silent where nothing is new, helpful or gone where something is, never harmful."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.adaptation.build import build_adaptation
from client.adaptation.fasa.gate import Null
from client.adaptation.fasa.look import look, vital_names
from client.adaptation.measure import add_sums, measure_sums, passes, source_of
from client.adaptation.measures import MEASURES
from common.attention.schema import schema_of
from common.attention.signature import signatures
from common.config import ModelSection, TaskSection
from common.data.base import Dataset
from common.errors import AdaptationError, DataError
from common.models.build import build_model
from common.seeds import generator
from common.shift.nulls import Thresholds
from common.tasks.build import build_task

SIDE, WINDOW = 16, 16
CPU = torch.device("cpu")


def site(seed, count=120, share=0.5, gain=1.0, offset=0.0):
    """A square that is bright or dark on noise, through a scanner of its own."""
    rng = generator(seed, "fasa", "site")
    labels = (rng.random(count) < share).astype(np.int64)
    shown = np.where(rng.random(count) < 0.1, 1 - labels, labels)  # no reader is right always
    images = rng.uniform(0.2, 0.5, (count, 1, SIDE, SIDE))
    images[:, 0, 5:10, 5:10] += np.where(shown, 0.22, -0.1)[:, None, None]
    return Dataset(
        name="made",
        images=(images * gain + offset).clip(0, 1).astype(np.float32),
        patients=np.array([f"p{number // 2}" for number in range(count)]),
        sites=np.zeros(count, np.int64),
        site_names=("one",),
        labels=labels,
        classes=("dark", "bright"),
    )


SITES = [site(1), site(2, gain=1.1, share=0.4), site(3, offset=0.03, share=0.6)]
DRIFTED = site(9, count=64, gain=0.3, offset=0.1)


def images_of(data):
    return data.batch(np.arange(len(data)), CPU).images


@cache
@torch.enable_grad()
def world():
    task = build_task(TaskSection(name="binary", positive="bright"), ("dark", "bright"), ())
    model = build_model(ModelSection(name="se-convnet", width=4), 1, 1, SIDE, seed=1)
    images, labels = torch.cat([images_of(s) for s in SITES]), torch.cat([torch.from_numpy(s.labels) for s in SITES])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(40):
        rows = torch.from_numpy(generator(step, "fasa", "batch").integers(0, len(images), 48))
        loss = F.binary_cross_entropy_with_logits(model(images[rows])[:, 0], labels[rows].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    source = source_of({}, task)
    for names in passes([name for name in MEASURES if MEASURES[name].__module__.startswith("client.adaptation.fasa")]):
        source = source_of(add_sums([measure_sums(model, task, s, names, source) for s in SITES]), task, source)
    first = add_sums([measure_sums(model, task, s, ("class_prior", "confusion")) for s in SITES])
    return model, source_of(first, task, source)


def fasa(values=None, sure=True, **source):
    """Build it with windows of 16; `sure` opens the gate for everything, None leaves the measured null."""
    shipped, known = world()
    ends = {True: Thresholds(0.0, 0.0), False: Thresholds(1e9, 1e9), None: known.null.thresholds}[sure]
    known = replace(known, null=Null(ends, 64 if sure is None else WINDOW), **source)
    return build_adaptation("fasa", shipped, known, values)


def feed(method, data, batch=WINDOW, count=None):
    images = images_of(data)[:count]
    return torch.cat([method.adapt(images[start : start + batch]) for start in range(0, len(images), batch)])


def same_state(left, right):
    return all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())


def answers(data):
    with torch.no_grad():
        return world()[0](images_of(data)).double().sigmoid()


def test_the_shipped_model_answers_to_the_bit_while_nothing_is_new():
    method, data = fasa(sure=None), site(4, count=256)
    assert torch.equal(
        feed(method, data, 64), torch.cat([answers(data.subset(np.arange(i, i + 64))) for i in range(0, 256, 64)])
    )
    assert [decision.action for decision in method.decisions] == ["source"] * 4
    assert not method.flagged
    assert method.counts.updates == 0


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_another_prevalence_alone_is_no_alarm(share):
    method = fasa(sure=None)
    feed(method, site(5, count=256, share=share))
    assert {decision.verdict for decision in method.decisions} <= {"normal", "heterogeneous"}
    assert method.counts.updates == 0


def test_another_scanner_is_an_alarm_and_what_is_kept_passed_all_tests():
    method = fasa(sure=None)
    feed(method, site(9, count=192, gain=0.3, offset=0.1), 64)
    assert method.flagged
    assert {decision.verdict for decision in method.decisions} == {"alarm"}
    for decision in method.decisions:
        if decision.action == "adapted":
            assert decision.evidence.after <= 0.9 * decision.evidence.before
            assert decision.evidence.flips <= 0.2


def test_the_distance_falls_and_only_what_is_named_moves():
    method = fasa({"least-gain": 0.0, "most-flips": 1, "most-mix-shift": 2, "least-entropy": 0}, bands=wide())
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    feed(method, DRIFTED)
    last = method.decisions[-1]
    assert last.action == "adapted"
    assert last.evidence.after < last.evidence.before
    moved = {name for name, value in method.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert moved <= set(method.adapted())
    assert any(name.endswith(("log", "scale")) for name in moved)


def wide():
    bands = world()[1].bands
    return type(bands)(np.zeros_like(bands.low), np.ones_like(bands.high))


ALONE = {
    "no-gain": {"least-gain": 0.999, "budget": 5},
    "flips": {"most-flips": 0.2},
    "label-mix": {"most-mix-shift": 0, "learning-rate": 0.02},
    "entropy": {"least-entropy": 1},
    "attention": {},
}
LOOSE = {"least-gain": 0.0, "most-flips": 1, "most-mix-shift": 2, "least-entropy": 0}


def call_all_bright(method):
    """Spoil the adapted weights, whatever may lead there: every answer is the same."""
    with torch.no_grad():
        method.model.head.bias += 1e3


def narrow():
    bands = world()[1].bands
    return type(bands)(np.full_like(bands.low, 0.999), np.full_like(bands.high, 1.0))


@pytest.mark.parametrize("name", ["no-gain", "flips", "label-mix", "entropy", "attention"])
def test_each_failed_test_alone_brings_the_shipped_model_back_to_the_bit(name):
    method = fasa({**LOOSE, **ALONE[name]}, bands=narrow() if name == "attention" else wide())
    shipped = {key: value.clone() for key, value in method.model.state_dict().items()}
    if name == "flips":
        call_all_bright(method)
    found = feed(method, DRIFTED)
    rolled = [decision for decision in method.decisions if decision.action == "rolled-back"]
    assert [decision.objections for decision in rolled] == [(name,)]
    assert method.decisions[-1].action == "frozen"
    assert method.counts.resets == 1
    assert all(torch.equal(value, shipped[key]) for key, value in method.model.state_dict().items())
    after = method.decisions.index(rolled[0]) * WINDOW
    assert torch.equal(
        found[after:],
        torch.cat([answers(DRIFTED.subset(np.arange(i, i + WINDOW))) for i in range(after, len(DRIFTED), WINDOW)]),
    )


def test_flips_beyond_a_fifth_are_rolled_back_with_the_limits_as_they_ship():
    method = fasa({"most-mix-shift": 2})
    call_all_bright(method)
    feed(method, DRIFTED, count=WINDOW)
    (gone,) = method.decisions
    assert gone.action == "rolled-back"
    assert "flips" in gone.objections
    assert gone.evidence.flips > 0.2
    assert torch.equal(method.predict(images_of(DRIFTED)), answers(DRIFTED))


def test_no_step_is_taken_beyond_the_budget():
    method = fasa({**LOOSE, "budget": 12}, bands=wide())
    feed(method, DRIFTED)
    assert method.counts.updates == 12
    assert max(decision.evidence.steps for decision in method.decisions if decision.evidence) == 12


def test_until_the_distance_has_fallen_the_shipped_weights_answer():
    method = fasa({**LOOSE, "least-gain": 0.999}, bands=wide())
    found = feed(method, DRIFTED, count=WINDOW)
    assert method.decisions[0].action == "waiting"
    assert torch.equal(found, answers(DRIFTED.subset(np.arange(WINDOW))))
    assert not same_state(method.model, fasa().model)


def test_locked_measures_and_flags_and_never_moves():
    method = fasa({"locked": True})
    assert torch.equal(feed(method, DRIFTED, 64), answers(DRIFTED))
    assert {decision.action for decision in method.decisions} == {"locked"}
    assert method.flagged
    assert method.counts.updates == 0
    assert same_state(method.model, fasa().model)


def test_a_shift_that_passes_gives_the_shipped_weights_back():
    _, known = world()
    far = Thresholds(known.null.thresholds.sample, known.null.thresholds.site)
    method = fasa({**LOOSE}, sure=None, bands=wide())
    assert method._null.thresholds == far
    feed(method, site(9, count=64, gain=0.3, offset=0.1), 64)
    assert method.decisions[-1].action == "adapted"
    back = site(6, count=64)
    assert torch.equal(feed(method, back, 64), answers(back))
    assert method.decisions[-1].action == "source"


def test_single_images_make_the_same_windows():
    one, many = fasa(LOOSE, bands=wide()), fasa(LOOSE, bands=wide())
    feed(one, DRIFTED, 1, 40)
    feed(many, DRIFTED, 40, 40)
    assert [d.distance for d in one.decisions] == pytest.approx([d.distance for d in many.decisions])
    assert same_state(one.model, many.model)


def test_another_federations_prior_does_no_harm():
    """Negative control: means that belong to other entries. The gate opens; no answer may get worse for it."""
    law = world()[1].attention
    order = generator(0, "permuted").permutation(law.means.shape[1])
    wrong = replace(law, means=law.means[:, order])
    method = fasa(sure=None, attention=wrong)
    data = site(8, count=192)
    found = feed(method, data, 64)
    assert method.flagged
    before, after = (((one[:, 0] > 0.5).numpy() == data.labels).mean() for one in (answers(data), found))
    assert after >= before - 0.01


def test_pixels_that_are_no_numbers_are_refused_and_nothing_is_learnt():
    method = fasa()
    broken = images_of(DRIFTED)[:WINDOW].clone()
    broken[3, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        method.adapt(broken)
    assert not method.decisions
    feed(method, DRIFTED)
    assert all(torch.isfinite(value).all() for value in method.model.state_dict().values())


def test_black_and_equal_images_stay_finite():
    method = fasa(LOOSE, bands=wide())
    for value in (-1.0, 0.0, 1.0):
        assert method.adapt(torch.full((WINDOW, 1, SIDE, SIDE), value)).isfinite().all()
    assert all(torch.isfinite(value).all() for value in method.model.state_dict().values())


def test_a_gradient_that_is_no_number_is_a_step_not_taken(monkeypatch):
    method = fasa(LOOSE, bands=wide())
    monkeypatch.setattr(type(method), "_loss", lambda self, images: next(iter(self._moved())).sum() * float("nan"))
    feed(method, DRIFTED, count=WINDOW)
    assert method.counts.skipped == 5
    assert method.counts.updates == 0
    assert same_state(method.model, fasa().model)


def test_a_model_without_attention_and_one_answer_per_pixel_are_refused():
    _, known = world()
    blind = build_model(ModelSection(name="convnet", width=8), 1, 1, SIDE, seed=1)
    blind.attention_sites = ()
    pixels = build_model(ModelSection(name="unet", width=8), 1, 1, SIDE, seed=1, dense=True)
    for model, said in ((blind, "names no attention site"), (pixels, "per pixel")):
        with pytest.raises(AdaptationError, match=said):
            build_adaptation("fasa", model, known)


@pytest.mark.parametrize("name", ["se-convnet", "vit-tiny", "cbam-resnet"])
def test_what_is_seen_is_the_signature_and_has_gradients(name):
    model = build_model(ModelSection(name=name, width=8), 1, 1, SIDE, seed=1).eval()
    images = torch.rand(5, 1, SIDE, SIDE) * 2 - 1
    seen = look(model, images, schema_of(model))
    torch.testing.assert_close(seen.rows.double(), signatures(model, images), rtol=1e-5, atol=1e-6)
    assert seen.vitals.shape == (5, len(vital_names(model.attention_sites)))
    assert (seen.vitals >= 0).all()
    assert (seen.vitals <= 1).all()
    seen.rows.square().sum().backward()
    assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0


def test_escalation_changes_what_is_descended():
    plus, none = fasa({**LOOSE, "escalation": 1.0}, bands=wide()), fasa(LOOSE, bands=wide())
    for method in (plus, none):
        feed(method, DRIFTED, count=WINDOW)
    assert not same_state(plus.model, none.model)
