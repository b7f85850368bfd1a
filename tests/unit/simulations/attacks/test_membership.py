"""LiRA: the ratio by SciPy, areas by theory, a mechanism with a known claim, and trainings that remember or do not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from client.private.training import PrivateTraining, train_privately
from client.training import train
from common.attention.base import AttentionModel
from common.config import load_run_config
from common.data.base import Dataset
from common.errors import ConfigError, DataError
from common.privacy.accountant import epsilon as price
from common.privacy.calibration import gaussian_noise_multiplier
from common.privacy.events import Gaussian, Repeated
from common.randomness import SecureRandom
from common.tasks.build import build_task
from simulations.attacks.claim import Claim
from simulations.attacks.membership import Shadows, likelihood_ratios, membership
from simulations.attacks.private_sum import GaussianSum
from simulations.attacks.shadows import SiteTraining, margin, patient_confidence, train_shadows

KEY = bytes(range(32))
NOTHING = Claim(math.inf, 0)


def halves(models, patients, seed=0):
    return np.random.default_rng(seed).random((models, patients)).argsort(axis=0) < models // 2


@pytest.mark.parametrize("models", [8, 70])
def test_the_score_is_the_log_ratio_of_two_normal_laws(models):
    rng, members = np.random.default_rng(1), halves(models, 5)
    confidence, target = rng.standard_normal((models, 5)) * np.arange(1, 6) + members, rng.standard_normal(5)
    found = likelihood_ratios(target, Shadows(confidence, members))
    laws = []
    for side in (members, ~members):
        own = [confidence[side[:, p], p] for p in range(5)]
        pooled = math.sqrt(np.mean([each.var(ddof=1) for each in own]))
        laws.append([norm(each.mean(), each.std(ddof=1) if models == 70 else pooled) for each in own])
    slow = [inside.logpdf(x) - outside.logpdf(x) for x, inside, outside in zip(target, *laws, strict=True)]
    assert np.allclose(found, slow)


def test_shifted_normal_confidences_are_told_as_theory_says():
    # Each patient's confidence is normal around a level of its own, 1.5 higher for members: the area is Φ(1.5 / √2).
    rng, members = np.random.default_rng(2), halves(65, 1000)
    confidence = 5 * rng.standard_normal(1000) + rng.standard_normal((65, 1000)) + 1.5 * members
    shadows = Shadows(confidence[1:], members[1:])
    high, highest, whole = membership(confidence[0], members[0], shadows, NOTHING, 0)
    assert whole.interval[0] < norm.cdf(1.5 / 2**0.5) < whole.interval[1]
    assert high.interval[0] < norm.sf(norm.isf(0.01) - 1.5) < high.interval[1] + 0.1
    assert highest.success <= high.success
    assert {each.verdict for each in (high, highest, whole)} == {"no-bound"}


@pytest.mark.parametrize("broken", [False, True])
def test_a_mechanism_with_a_known_claim(broken):
    """Every patient adds an axis of his own to one noisy sum; the attacker reads his entry: the sharpest case."""
    noise = gaussian_noise_multiplier(1.0, 1e-5) / (10 if broken else 1)
    release = GaussianSum(1.0, noise, SecureRandom(KEY))

    def confidence(chosen, seed):
        return release(np.eye(len(chosen))[chosen])

    members = np.random.default_rng(0).random(400) < 0.5
    shadows = train_shadows(confidence, 400, 16, seed=0)
    findings = membership(confidence(members, 0), members, shadows, Claim(1.0, 1e-5), 0)
    verdicts = [each.verdict for each in findings]
    assert verdicts[2] == ("exceeds" if broken else "within")
    assert ("exceeds" in verdicts[:2]) == broken


def test_margins_are_the_logits_of_probabilities():
    torch.manual_seed(0)
    logits, labels = torch.randn(20, 4).double(), torch.arange(20) % 4
    p = logits.softmax(1)[torch.arange(20), labels]
    assert torch.allclose(margin(logits, labels), torch.logit(p))
    p = torch.where(labels % 2 == 1, logits[:, 0].sigmoid(), 1 - logits[:, 0].sigmoid())
    assert torch.allclose(margin(logits[:, :1], labels % 2), torch.logit(p))


class Perceptron(AttentionModel):
    """Enough to learn few images by heart, in no time."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed % 2**32)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, images):
        return self.layers(images)


PATIENTS = 80


def noise_data():
    """Images and labels without any rule: what is known of them is known by heart. Two images for each patient."""
    random = np.random.default_rng(5)
    return Dataset(
        name="made",
        images=random.random((2 * PATIENTS, 1, 8, 8)).astype(np.float32),
        patients=np.repeat([f"p{i:03}" for i in range(PATIENTS)], 2),
        sites=np.zeros(2 * PATIENTS, np.int64),
        site_names=("here",),
        labels=np.repeat(random.integers(0, 2, PATIENTS), 2),
        classes=("no", "yes"),
    )


def trained(noise):
    settings = {
        "train.augment": False,
        "train.local-epochs": 15,
        "train.learning-rate": 0.01,
        "privacy.mechanism": "gaussian",
        "privacy.sampling-probability": 1.0,
    }
    config = load_run_config(settings)
    task = build_task(config.task, ("no", "yes"), ())

    def run(model, patients, seed):
        if noise is None:
            return train(model, task, patients, config.train, seed)
        private = PrivateTraining(config.train, config.privacy, noise, random=SecureRandom(seed.to_bytes(32, "big")))
        return train_privately(model, task, patients, private)

    return SiteTraining(Perceptron, run, task.prepare(noise_data()))


@pytest.mark.parametrize("noise", [None, 40.0], ids=["not private", "private"])
def test_a_training_that_learns_by_heart_is_found_out_and_a_private_one_is_not(noise):
    # Fifteen steps with noise 40 are one release with noise 40 / sqrt(15): ε = 0.31 at δ = 1e-5.
    claim = Claim(price([Repeated(Gaussian(40.0), 15)], 1e-5), 1e-5)
    members = np.random.default_rng(9).random(PATIENTS) < 0.5
    site = trained(noise)
    *_, whole = membership(site(members, 77), members, train_shadows(site, PATIENTS, 12, seed=1), claim, 0)
    assert whole.claimed_bound == pytest.approx(0.577, abs=0.005)
    assert whole.verdict != "exceeds" if noise else whole.verdict == "exceeds"
    assert noise or whole.success > 0.9


def test_workers_change_nothing():
    def confidence(chosen, seed):
        return np.random.default_rng(seed).random(len(chosen)) + chosen

    alone, together = (train_shadows(confidence, 9, 6, 3, workers=workers) for workers in (0, 2))
    assert np.array_equal(alone.confidence, together.confidence)
    assert (alone.members.sum(axis=0) == 3).all()


def test_confidence_is_a_mean_over_the_images_of_a_patient():
    data = noise_data()
    model = Perceptron(0)
    z = model(data.batch(np.arange(2 * PATIENTS), torch.device("cpu")).images)[:, 0].detach().double().numpy()
    by_hand = [(z[2 * p : 2 * p + 2] * (2 * data.labels[2 * p] - 1)).mean() for p in range(PATIENTS)]
    assert np.allclose(patient_confidence(model, data), by_hand, atol=1e-6)


def test_what_cannot_be_told_is_refused():
    fine = Shadows(np.zeros((4, 3)), halves(4, 3))
    with pytest.raises(DataError, match="3 of 3"):
        membership(np.zeros(3), np.ones(3, bool), fine, NOTHING, 0)
    with pytest.raises(DataError, match="train more"):
        Shadows(np.zeros((3, 2)), halves(3, 2))
    with pytest.raises(DataError, match="not finite"):
        Shadows(np.full((4, 3), np.nan), halves(4, 3))
    data = noise_data()
    with pytest.raises(ConfigError, match="there is none"):
        patient_confidence(Perceptron(0), replace(data, labels=None))
