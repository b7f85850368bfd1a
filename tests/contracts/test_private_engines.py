"""What every engine of ENGINES promises: the sum of clipped patient gradients that one patient at a time would give."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from client.private import ENGINES
from client.private.base import Clip, image_losses, learning
from client.private.checks import explicit_attention
from common.attention import ATTENTION
from common.config import ModelSection, load_run_config
from common.data.base import Batch
from common.errors import UnsupportedModelError
from common.models.build import build_model
from common.models.placement import fits
from common.tasks.build import build_task
from tests.fed_items import fed, noisy

OURS = ["one-backward", "per-sample"]
PATIENTS = torch.tensor([0, 0, 0, 1, 2, 2, 3])
SIZE = 32
BODIES = ["se-convnet", "vit-tiny", "cbam-resnet", "attention-unet"]
DENSE = {"attention-unet", "unet"}
KINDS = [
    (body, name)
    for body, spot in (("convnet", "classifier"), ("vit", "tokens"))
    for name in ATTENTION
    if fits(name, spot, 2)
]


TAKEN_APART_BY_VMAP_ONLY = {("convnet", "cross-axis"), ("vit", "cross-axis")}
"""One projection serves both axes: it is called twice."""


def make(name, attention="", seed=1):
    section = ModelSection(name=name, width=8, attention=attention)
    model = build_model(section, 1, 2, SIZE, seed, dense=name in DENSE)
    with torch.no_grad():  # nothing may hide behind a start at zero
        for number, parameter in enumerate(model.parameters()):
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    return model.double().train()


def pictures(count=7, seed=2):
    source = torch.Generator().manual_seed(seed)
    images = F.interpolate(torch.rand(count, 1, 8, 8, generator=source) * 2 - 1, size=(SIZE, SIZE), mode="bilinear")
    return Batch(images=images.double(), labels=torch.arange(count) % 2, masks=None)


def losses(logits, batch):
    """Squared distance of each image from a target that its label turns."""
    target = torch.linspace(-1, 1, logits[0].numel(), dtype=logits.dtype).view(logits[0].shape)
    sign = batch.labels.to(logits.dtype).view(-1, *[1] * (logits.ndim - 1)) - 0.4
    return (logits - sign * target).square().flatten(1).mean(1)


def oracle(model, losses, batch, patients, clip):
    """One patient at a time, from the definition."""
    parameters = list(learning(model).values())
    total, norms = [torch.zeros_like(each) for each in parameters], []
    for patient in range(int(patients.max()) + 1):
        images = torch.nonzero(patients == patient)[:, 0]
        gradient = [torch.zeros_like(each) for each in parameters]
        for image in images:
            one = Batch(
                images=batch.images[image][None],
                labels=None if batch.labels is None else batch.labels[image][None],
                masks=None if batch.masks is None else batch.masks[image][None],
            )
            loss = losses(model(one.images), one).sum() / len(images)
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            gradient = [sums if new is None else sums + new for sums, new in zip(gradient, found, strict=True)]
        norm = torch.stack([each.norm() for each in gradient]).norm()
        factor = min(1.0, clip.norm / float(norm)) if clip.kind == "flat" else clip.norm / (float(norm) + 0.01)
        total = [sums + factor * each for sums, each in zip(total, gradient, strict=True)]
        norms.append(norm)
    return total, torch.stack(norms)


def same(model, found, expected, tolerance=1e-9):
    total, norms = expected
    torch.testing.assert_close(found.norms, norms.detach(), rtol=tolerance, atol=1e-12)
    scale = max(float(each.abs().max()) for each in total)
    for name, mine, theirs in zip(learning(model), found.total, total, strict=True):
        torch.testing.assert_close(
            mine, theirs.detach(), rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("kind", ["flat", "automatic"])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("engine", OURS)
def test_every_default_model_equals_one_patient_at_a_time(engine, body, kind):
    model, batch = make(body), pictures()
    clip = Clip(float(oracle(model, losses, batch, PATIENTS, Clip(1.0))[1].median()), kind)  # half are cut
    same(
        model, ENGINES.load(engine)(model, losses, batch, PATIENTS, clip), oracle(model, losses, batch, PATIENTS, clip)
    )


@pytest.mark.parametrize("patients", [(0, 0, 0, 0, 1, 1, 1), (1, 0, 1, 0, 0, 1, 1), (0,) * 7])
@pytest.mark.parametrize("body", BODIES)
def test_many_images_a_patient(body, patients):
    model, batch, patients = make(body), pictures(), torch.tensor(patients)
    clip = Clip(float(oracle(model, losses, batch, patients, Clip(1.0))[1].min()))
    found = ENGINES.load("one-backward")(model, losses, batch, patients, clip)
    same(model, found, oracle(model, losses, batch, patients, clip))


@pytest.mark.parametrize(("body", "attention"), KINDS)
def test_every_kind_of_attention(body, attention):
    model, batch = make(body, attention), pictures()
    clip = Clip(0.01)
    expected = oracle(model, losses, batch, PATIENTS, clip)
    same(model, ENGINES.load("per-sample")(model, losses, batch, PATIENTS, clip), expected)
    if (body, attention) in TAKEN_APART_BY_VMAP_ONLY:
        with pytest.raises(UnsupportedModelError, match="per-sample"):
            ENGINES.load("one-backward")(model, losses, batch, PATIENTS, clip)
    else:
        same(model, ENGINES.load("one-backward")(model, losses, batch, PATIENTS, clip), expected)


@pytest.mark.parametrize("engine", OURS)
def test_one_image_a_patient(engine):
    model, batch = make("vit-tiny"), pictures()
    patients = torch.arange(len(batch.images))
    clip = Clip(0.05)
    same(
        model, ENGINES.load(engine)(model, losses, batch, patients, clip), oracle(model, losses, batch, patients, clip)
    )


def test_opacus_agrees_where_a_patient_has_one_image():
    pytest.importorskip("opacus")
    model, batch = make("vit-tiny"), pictures()
    patients = torch.arange(len(batch.images))
    clip = Clip(0.05)
    with explicit_attention(model):
        found = ENGINES.load("opacus")(model, losses, batch, PATIENTS, clip)
        same(model, found, oracle(model, losses, batch, PATIENTS, clip), 1e-7)
        found = ENGINES.load("opacus")(model, losses, batch, patients, clip)
        same(model, found, oracle(model, losses, batch, patients, clip), 1e-7)


@pytest.mark.parametrize("task", ["binary", "multiclass", "segmentation"])
@pytest.mark.parametrize("engine", OURS)
def test_the_losses_of_tasks(engine, task):
    dense = task == "segmentation"
    section = load_run_config({"task.name": task}).task
    judge = build_task(section, ("a", "b"), ("lesion",))
    model = build_model(
        ModelSection(name="attention-unet" if dense else "se-convnet", width=8), 1, judge.outputs, SIZE, 1, dense=dense
    ).double()
    batch = pictures()
    if dense:
        batch = Batch(images=batch.images, labels=None, masks=(batch.images[:, 0] > 0.3).to(torch.uint8))
    clip = Clip(0.5)
    found = ENGINES.load(engine)(model, image_losses(judge), batch, PATIENTS, clip)
    same(model, found, oracle(model, image_losses(judge), batch, PATIENTS, clip), 1e-5)  # losses are of float32


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "segmentation", "several masks"])
def test_losses_of_images_are_those_of_batches_of_one(task):
    dense = task in ("segmentation", "several masks")
    section = load_run_config({"task.name": "segmentation" if dense else task}).task
    masks = ("background", "core", "rim") if task == "several masks" else ("lesion",)
    judge = build_task(section, ("a", "b"), masks)
    random = torch.Generator().manual_seed(4)
    count, shape = 5, (judge.outputs, 6, 6) if dense else (judge.outputs,)
    logits = torch.randn(count, *shape, generator=random, requires_grad=True)
    labels = torch.randint(0, 2, (count, 2) if task == "multilabel" else (count,), generator=random)
    batch = Batch(
        images=torch.rand(count, 1, 6, 6, generator=random),
        labels=None if dense else labels,
        masks=torch.randint(0, len(masks), (count, 6, 6), generator=random, dtype=torch.uint8) if dense else None,
    )
    found = image_losses(judge)(logits, batch)
    for number in range(count):
        only = slice(number, number + 1)
        alone = Batch(batch.images[only], None if dense else labels[only], batch.masks[only] if dense else None)
        torch.testing.assert_close(found[number], judge.loss(logits[only], alone))
    one = torch.autograd.grad(found[2], logits)[0]
    assert one[2].any()
    assert not one[[0, 1, 3, 4]].any()


@settings(max_examples=12, deadline=None)
@given(images=st.sampled_from([1, 5, 50]), size=st.sampled_from([0.0, 1.0, 1e4, 1e30, float("nan"), float("inf")]))
@pytest.mark.parametrize("engine", OURS)
def test_one_patient_moves_the_sum_by_at_most_the_clip_norm(engine, images, size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 2))
    others = torch.arange(3).repeat_interleave(2)
    scales = torch.cat([torch.ones(6), torch.full((images,), size)])  # as labels: what an image's loss is multiplied by
    batch = Batch(images=torch.randn(6 + images, 1, 4, 4), labels=scales, masks=None)
    patients = torch.cat([others, torch.full((images,), 3)])
    without = Batch(images=batch.images[:6], labels=batch.labels[:6], masks=None)

    def harsh(logits, part):
        return logits.square().sum(1) * part.labels

    clip = Clip(0.05)
    whole = ENGINES.load(engine)(model, harsh, batch, patients, clip).total
    rest = ENGINES.load(engine)(model, harsh, without, others, clip).total
    moved = torch.stack([(a - b).norm() for a, b in zip(whole, rest, strict=True)]).norm()
    assert float(moved) <= clip.norm * (1 + 1e-5)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.BatchNorm2d(1), "use GroupNorm"),
        (nn.BatchNorm2d(1).requires_grad_(False), "use GroupNorm"),
        (nn.InstanceNorm2d(1, track_running_stats=True), "running statistics"),
        (nn.ReLU(inplace=True), "Set inplace=False"),
    ],
)
@pytest.mark.parametrize("engine", [*OURS, "opacus"])
def test_layers_in_which_patients_meet_are_refused_by_name(engine, module, said):
    model = nn.Sequential(module, nn.Flatten(), nn.Linear(SIZE * SIZE, 2)).double().train()
    with pytest.raises(UnsupportedModelError, match=f"layer '0'.*{said}"):
        ENGINES.load(engine)(model, losses, pictures(), PATIENTS, Clip(1.0))


class Folded(nn.Module):
    """Cuts images into halves that stand in the batch, as windows often do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(SIZE * SIZE // 2, 2)

    def forward(self, images):
        return self.linear(images.reshape(2 * len(images), -1)).reshape(len(images), 2, 2).mean(1)


class Twice(nn.Module):
    """Uses one layer twice."""

    def __init__(self):
        super().__init__()
        self.first, self.linear = nn.Linear(SIZE * SIZE, 4), nn.Linear(4, 4)

    def forward(self, images):
        return self.linear(self.linear(self.first(images.flatten(1))).tanh())


class Rooted(nn.Module):
    """Holds a parameter beside a layer."""

    def __init__(self):
        super().__init__()
        self.linear, self.shift = nn.Linear(SIZE * SIZE, 2), nn.Parameter(torch.ones(2))

    def forward(self, images):
        return self.linear(images.flatten(1)) + self.shift


@pytest.mark.parametrize("kind", [Folded, Twice, Rooted])
def test_what_one_backward_cannot_take_apart_the_other_engine_can(kind):
    torch.manual_seed(0)
    model, batch, clip = kind().double(), pictures(), Clip(0.1)
    with pytest.raises(UnsupportedModelError, match=r"set `privacy\.engine` to per-sample"):
        ENGINES.load("one-backward")(model, losses, batch, PATIENTS, clip)
    found = ENGINES.load("per-sample")(model, losses, batch, PATIENTS, clip)
    same(model, found, oracle(model, losses, batch, PATIENTS, clip))


@pytest.mark.parametrize("engine", OURS)
def test_the_model_is_left_as_it_was(engine):
    model = make("se-convnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ENGINES.load(engine)(model, losses, pictures(), PATIENTS, Clip(1.0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("attention", ["", "token-pooling", "none"])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_bags_are_taken_apart_as_images_are(engine, attention):
    channels, size = fed("abmil")
    model = build_model(ModelSection(name="abmil", width=4, attention=attention), channels, 2, size, 1).double().train()
    batch = Batch(images=noisy("abmil", 7).double(), labels=torch.arange(7) % 2, masks=None)
    found = ENGINES.load(engine)(model, losses, batch, PATIENTS, Clip(0.5))
    same(model, found, oracle(model, losses, batch, PATIENTS, Clip(0.5)))
