"""What a model may do to make one patient count for more than he should, or an engine err: found, refused or right."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from client.private import ENGINES
from client.private.auto import auto
from client.private.base import Clip, learning
from client.private.factors import Factors
from client.private.ghost import ghost, squared_norms
from client.private.one_backward import one_backward, taken_apart
from client.private.per_sample import per_sample
from client.private.rules import linear
from common.data.base import Batch
from common.errors import UnsupportedModelError

CLIP = Clip(0.05)
SIZE = 6


def batch(count=6, channels=1):
    images = torch.randn(count, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(5)).double()
    return Batch(images=images, labels=torch.arange(count) % 2, masks=None)


def losses(logits, part):
    return (logits.flatten(1) - part.labels[:, None]).square().mean(1)


def same(found, expected):
    torch.testing.assert_close(found.norms, expected.norms, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(found.total, expected.total, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def layers(*parts):
    torch.manual_seed(0)
    return nn.Sequential(*parts, nn.Flatten(), nn.LazyLinear(2)).double()


def made(model, part=None):
    model(part.images if part else batch().images)  # lazy layers take their shape
    return model


class Meeting(nn.Module):
    """Takes the batch's mean away: no layer on any list, and images meet all the same."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(SIZE * SIZE, 2)

    def forward(self, images):
        return self.layer(images.flatten(1) - images.flatten(1).mean(0))


class Gated(Meeting):
    """As above, behind a gate that starts at zero."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.zeros_(self.gate.weight)

    def forward(self, images):
        return self.layer(images.flatten(1) + (self.gate(images) - self.gate(images).mean(0)).flatten(1))


class Sideways(nn.Module):
    """Turns images and tokens round: where they are equally many, the batch only seems to stay in front."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(SIZE, 4), nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.layer(images[:, 0].transpose(0, 1)).mean(0))


class Behind(nn.Module):
    """Reads a layer's weight without calling the layer."""

    def __init__(self):
        super().__init__()
        self.layer, self.other = nn.Linear(SIZE * SIZE, 2), nn.Linear(SIZE * SIZE, 2)

    def forward(self, images):
        flat = images.flatten(1)
        return self.other(flat) + flat @ self.layer.weight.T


class Overwriting(nn.Module):
    """Changes in place what a layer was given."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(SIZE * SIZE, SIZE * SIZE), nn.Linear(SIZE * SIZE, 2)

    def forward(self, images):
        flat = images.flatten(1) * 1.0
        out = self.layer(flat)
        flat.mul_(2.0)
        return self.head(out + flat)


class Named(nn.Module):
    """Gives a layer a second input by name."""

    class Scaled(nn.Linear):
        def forward(self, given, scale=1.0):
            return super().forward(given) * scale

    def __init__(self):
        super().__init__()
        self.layer = Named.Scaled(SIZE * SIZE, 2)

    def forward(self, images):
        return self.layer(images.flatten(1), scale=3.0)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(SIZE * SIZE, SIZE * SIZE), nn.Linear(SIZE * SIZE, SIZE * SIZE)
        self.second.weight = self.first.weight

    def forward(self, images):
        return self.second(self.first(images.flatten(1)).tanh())


class Drawing(nn.Module):
    """Draws inside a layer: run again, it draws anew."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(SIZE * SIZE))

    def forward(self, images):
        return F.dropout(images.flatten(1) * self.scale, 0.5, self.training)


HOSTILE = {
    Meeting: "images meet",
    Gated: "called 2 times|images meet",
    Sideways: "folds|images meet",
    Behind: "behind its layer's back",
    Overwriting: "changes in place",
    Named: "takes 2 inputs",
    Tied: "layers 'first' and 'second' share a parameter",
    Drawing: "cannot be taken apart",
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("count", [1, 6])  # alone in the first batch, no image could meet another
def test_the_fast_engine_refuses_and_auto_is_right(kind, count):
    torch.manual_seed(0)
    model, part = kind().double(), batch(count)
    with pytest.raises(UnsupportedModelError, match=HOSTILE[kind]):
        one_backward(model, losses, part, torch.arange(count), CLIP)
    if kind not in (Drawing, Overwriting):  # which draws anew, and which nothing can train
        found = auto(model, losses, batch(6), torch.arange(6), CLIP)
        same(found, per_sample(model, losses, batch(6), torch.arange(6), CLIP))


def test_without_the_trial_a_patient_would_move_the_sum_by_more_than_the_clip_norm():
    # What the trial is for: tokens taken for patients, each clipped, and every one of them holds all patients.
    torch.manual_seed(0)
    model, part = Sideways().double(), batch(SIZE)
    for parameter in model.head.parameters():
        parameter.requires_grad_(False)
    others = Batch(images=part.images.clone(), labels=part.labels, masks=None)
    others.images[0] = -30 * others.images[0]
    whole, changed = (taken_apart(model, losses, each, torch.arange(SIZE), CLIP).total for each in (part, others))
    moved = torch.stack([(a - b).norm() for a, b in zip(whole, changed, strict=True)]).norm()
    assert float(moved) > 2 * CLIP.norm


@pytest.mark.parametrize("patients", [(0, 1, 2, 3, 4, 5), (0, 0, 1, 2, 2, 3), (0, 0, 0, 0, 1, 1)])
@pytest.mark.parametrize("engine", ["one-backward", "per-sample", "opacus"])
def test_frozen_parameters_count_in_no_norm(engine, patients):
    if engine == "opacus":
        pytest.importorskip("opacus")
    model = made(layers(nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3)))
    model[0].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    model[3].weight.requires_grad_(False)
    part, patients = batch(), torch.tensor(patients)
    found = ENGINES.load(engine)(model, losses, part, patients, CLIP)
    parameters = list(learning(model).values())
    assert len(found.total) == len(parameters) == 3
    for patient in range(len(found.norms)):
        own = patients == patient
        loss = losses(model(part.images[own]), Batch(part.images[own], part.labels[own], None)).mean()
        norm = torch.stack([each.norm() for each in torch.autograd.grad(loss, parameters)]).norm()
        torch.testing.assert_close(found.norms[patient], norm, rtol=1e-9, atol=0)


@pytest.mark.parametrize("engine", ["one-backward", "per-sample"])
def test_a_model_in_which_nothing_learns_gives_nothing(engine):
    model = made(layers()).requires_grad_(False)
    found = ENGINES.load(engine)(model, losses, batch(), torch.arange(6), CLIP)
    assert found.total == []
    assert not found.norms.any()


class Partly(nn.Module):
    """A layer that never runs, one that runs where nothing is learnt, and an output changed in place."""

    def __init__(self):
        super().__init__()
        self.never, self.still = nn.Linear(3, 3), nn.Linear(SIZE * SIZE, SIZE * SIZE)
        self.first, self.head = nn.Linear(SIZE * SIZE, SIZE * SIZE), nn.Linear(SIZE * SIZE, 2)

    def forward(self, images):
        with torch.no_grad():
            aim = self.still(images.flatten(1))
        out = self.first(images.flatten(1))
        out *= 3
        out += aim
        return self.head(out)


def test_layers_without_gradient_get_none_and_outputs_may_change_in_place():
    torch.manual_seed(0)
    model, patients = Partly().double(), torch.arange(6)
    found = one_backward(model, losses, batch(), patients, CLIP)
    same(found, per_sample(model, losses, batch(), patients, CLIP))
    assert not any(each.any() for each in found.total[:4])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, padding="same"),
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(2, 3, 2, dilation=2),
        nn.Conv2d(2, 3, 1, stride=2),
        nn.Conv2d(2, 3, 1, padding=1),
        nn.Sequential(nn.Conv2d(2, 20, 5, padding=2, stride=3), nn.Conv2d(20, 30, 2)),  # few places: ghost norms
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(4, 3, 2)),
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True)),
    ],
)
def test_every_way_of_convolving(layer):
    part = batch(channels=2)
    model = made(layers(layer), part)
    for patients in (torch.arange(6), torch.tensor([0, 0, 1, 1, 1, 2])):
        same(
            taken_apart(model, losses, part, patients, CLIP),
            per_sample(model, losses, part, patients, CLIP),
        )


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_weight_that_is_made_of_other_parameters():
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(nn.Linear(SIZE, 5))
    model = made(layers(layer))
    same(
        taken_apart(model, losses, batch(), torch.arange(6), CLIP),
        per_sample(model, losses, batch(), torch.arange(6), CLIP),
    )


@pytest.mark.parametrize("engine", [taken_apart, per_sample])
def test_patients_in_any_order(engine):
    # As many patients as images is not the same as image i of patient i.
    model, part, order = made(layers()), batch(), torch.tensor([3, 1, 0, 5, 2, 4])
    straight = engine(model, losses, part, torch.arange(6), CLIP)
    mixed = engine(model, losses, part, order, CLIP)
    torch.testing.assert_close(mixed.norms[order], straight.norms)
    for mine, theirs in zip(mixed.total, straight.total, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("seed", range(5))
def test_tokens_that_cancel_do_not_hide_a_long_gradient(seed):
    # gₜ sum to nothing and all xₜ are nearly one: the norm is a millionth of its terms, and rounding eats it.
    random = torch.Generator().manual_seed(seed)
    signs = torch.tensor([1.0, -1.0]).repeat(8)[None, :, None]
    given = torch.randn(1, 1, 64, generator=random) + 3e-6 * torch.randn(1, 16, 64, generator=random)
    gradient = 1e4 * signs * torch.randn(1, 1, 64, generator=random)
    layer = nn.Linear(64, 64, bias=False)
    long = float(linear(layer, given, gradient)["weight"].norm())
    assert long > 5  # with a clip norm of one it must be cut
    squares, weigh = ghost(layer, given, gradient)
    moved = weigh(Factors.of(Clip(1.0).factors(squares.sqrt())))["weight"].norm()
    assert float(moved) <= 1.0 + 1e-3


def test_without_cancelling_the_norm_is_that_of_the_gradient():
    random = torch.Generator().manual_seed(0)
    given, gradient = (torch.randn(4, 50, deep, generator=random) for deep in (192, 768))
    exact = torch.bmm(gradient.double().transpose(1, 2), given.double()).flatten(1).norm(dim=1)
    found = squared_norms(given, gradient).sqrt().double()
    assert ((found >= exact * (1 - 1e-6)) & (found <= exact * (1 + 1e-3))).all()


def test_opacus_drops_a_spoilt_patient_and_leaves_gradients_alone():
    pytest.importorskip("opacus")
    model, part = made(layers()), batch()
    part.images[2] = float("nan")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    found = ENGINES.load("opacus")(model, losses, part, torch.arange(6), CLIP)
    same_without = per_sample(model, losses, part, torch.arange(6), CLIP)
    for mine, theirs in zip(found.total, same_without.total, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters())
