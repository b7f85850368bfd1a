"""Gradient inversion: closed forms are exact on raw gradients, and nothing comes back from what leaves under DP."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.config import load_run_config
from common.data.base import Batch, Dataset
from common.errors import ConfigError, UnknownNameError
from common.models.build import build_model
from common.privacy.calibration import gaussian_noise_multiplier
from common.randomness import SecureRandom
from common.tasks.build import build_task
from simulations.attacks.claim import Claim
from simulations.attacks.closed_forms import (
    image_of_first_linear,
    image_of_transformer,
    input_of_linear,
    label_of_bias,
    last_bias,
    patches_of_embedding,
)
from simulations.attacks.gradient_search import flat_gradient, variation
from simulations.attacks.inversion import INVERSIONS, Target, inversion, psnr
from simulations.attacks.private_sum import GaussianSum, plain_sum

KEY = bytes(range(32))
SIDE, PATIENTS = 16, 24
CLAIM = Claim(1.0, 1e-5)
CLASSES = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c")}
HIDDEN_DB = 15.0


def blobs(classes=("no", "yes")):
    """Smooth images, each with a bright disc of its own."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    centre, width = random.uniform(0.2, 0.8, (PATIENTS, 2, 1, 1)), random.uniform(0.05, 0.2, (PATIENTS, 1, 1))
    images = np.exp(-((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2) / width**2 / 2)
    return Dataset(
        name="blobs",
        images=images[:, None].astype(np.float32),
        patients=np.array([f"p{i:02}" for i in range(PATIENTS)]),
        sites=np.zeros(PATIENTS, np.int64),
        site_names=("here",),
        labels=np.arange(PATIENTS) % len(classes),
        classes=classes,
    )


def task_of(kind="binary"):
    return build_task(load_run_config({"task.name": kind}).task, CLASSES[kind], ())


def perceptron(outputs=1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 20), nn.Tanh(), nn.Linear(20, outputs))


def transformer():
    config = load_run_config({"model.name": "vit-tiny", "model.width": 8})
    return build_model(config.model, 1, 1, SIDE, seed=0)


def smooth():
    """Convolutions that can be differentiated twice, wide enough to keep every pixel."""
    torch.manual_seed(1)
    first, second = nn.Conv2d(1, 12, 5, 2, 2), nn.Conv2d(12, 12, 5, 2, 2)
    layers = nn.Sequential(first, nn.Sigmoid(), second, nn.Sigmoid(), nn.Flatten(), nn.Linear(192, 1))
    for parameter in layers.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return layers


def attacked(model, name, release, claim=CLAIM, victims=6, kind="binary"):
    data = blobs(CLASSES[kind])
    task = task_of(kind)
    return inversion(Target(model, task, task.prepare(data), victims), name, release, claim)


def under_dp(epsilon=1.0):
    return GaussianSum(1.0, gaussian_noise_multiplier(epsilon, 1e-5), SecureRandom(KEY))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 99))
def test_a_linear_layer_gives_its_input_away(outputs, inputs, seed):
    torch.manual_seed(seed)
    layer, given_ = nn.Linear(inputs, outputs).double(), torch.randn(1, inputs).double()
    weight, bias = torch.autograd.grad(layer(given_).sin().sum(), [layer.weight, layer.bias])
    assert torch.allclose(input_of_linear(weight, bias), given_[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_the_head_gives_the_label_away(kind):
    model, task = perceptron(1 if kind == "binary" else 3), task_of(kind)
    batch = task.prepare(blobs(CLASSES[kind])).batch(np.arange(PATIENTS), torch.device("cpu"))
    for i in range(PATIENTS):
        one = Batch(batch.images[i : i + 1], batch.labels[i : i + 1], None)
        bias = torch.autograd.grad(task.loss(model(one.images), one), model[3].bias)[0]
        assert label_of_bias(bias) == int(batch.labels[i])


def test_patches_follow_from_the_table_of_positions():
    torch.manual_seed(0)
    returned, patches = torch.randn(9, 20).double(), torch.randn(9, 16).double()
    assert torch.allclose(patches_of_embedding(returned, returned.T @ patches), patches, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "name"), [(perceptron, "first-linear"), (transformer, "transformer")], ids=["perceptron", "transformer"]
)
def test_closed_forms_see_everything_in_raw_gradients_and_nothing_under_dp(make, name):
    near, told = attacked(make(), name, plain_sum)
    assert near.details["worst"] > 60
    assert (told.success, told.verdict) == (1.0, "exceeds")  # what is released keeps no ε, and this shows it
    near, told = attacked(make(), name, under_dp(), victims=PATIENTS)
    assert near.details["best"] < HIDDEN_DB
    assert told.verdict == "within"
    assert near.verdict == "no-bound"


@pytest.mark.slow
def test_search_finds_the_image_in_a_raw_gradient_and_nothing_under_dp():
    near, told = attacked(smooth(), "search", plain_sum, victims=2)
    assert near.success > 25 > near.baseline
    assert told.success == 1.0
    near, _ = attacked(smooth(), "search", under_dp(), victims=1)
    assert near.details["best"] < HIDDEN_DB


def test_a_guess_is_right_as_often_as_the_baseline_says():
    _, told = attacked(perceptron(), "first-linear", plain_sum, Claim(math.log(3), 0))
    assert told.baseline == pytest.approx(1 / PATIENTS)
    assert told.claimed_bound == pytest.approx(3 / PATIENTS)


def test_psnr_by_hand():
    # Half of the pixels are off by 1 of a range of 2: mean squared error 0.5, 10 log10(4 / 0.5) = 9.03 dB.
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1
    assert psnr(torch.zeros_like(truth), truth)[0] == pytest.approx(9.0309, abs=1e-4)
    assert psnr(truth, truth)[0] > 200


def test_variation_by_hand():
    image = torch.zeros(1, 1, 2, 2)
    image[..., 1, 1] = 1  # down: 0 and 1; right: 0 and 1
    assert float(variation(image)) == pytest.approx(1.0)


def test_a_flat_gradient_is_autograds():
    model, task = perceptron(), task_of()
    batch = task.prepare(blobs()).batch(np.arange(3), torch.device("cpu"))
    task.loss(model(batch.images), batch).backward()
    whole = torch.cat([each.grad.flatten() for each in model.parameters()])
    assert torch.allclose(flat_gradient(model, task, batch), whole)


@pytest.mark.parametrize(
    "attack",
    [
        lambda: image_of_first_linear(transformer(), {}, (1, SIDE, SIDE)),
        lambda: image_of_transformer(perceptron(), {}, (1, SIDE, SIDE)),
        lambda: last_bias(nn.Conv2d(1, 1, 3)),
    ],
)
def test_an_attack_that_does_not_fit_says_so(attack):
    with pytest.raises(ConfigError, match="has no"):
        attack()


def test_what_cannot_be_attacked_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'search'"):
        attacked(perceptron(), "serch", plain_sum)
    config = load_run_config({"task.name": "segmentation"})
    task = build_task(config.task, ("no", "yes"), ("background", "lesion"))
    with pytest.raises(ConfigError, match="binary and multiclass"):
        inversion(Target(perceptron(), task, blobs()), "search", plain_sum, CLAIM)


def test_every_attacker_is_tried_here():
    assert set(INVERSIONS) == {"first-linear", "transformer", "search"}
