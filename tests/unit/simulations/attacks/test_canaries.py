"""The one-run audit: its bound against a slow twin, the published figures, what keeps a claim and what breaks it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.private.training import PrivateTraining, train_privately
from client.training import train
from common.config import load_run_config
from common.data.base import Dataset
from common.errors import ConfigError, PrivacyError
from common.models.build import build_model
from common.privacy.accountant import epsilon as price
from common.privacy.events import Gaussian, Repeated
from common.randomness import SecureRandom
from common.tasks.build import build_task
from simulations.attacks.audit_bound import chance_of, epsilon_at_least
from simulations.attacks.canaries import audit, dirac
from simulations.attacks.claim import Claim
from simulations.attacks.planted import Planted
from simulations.attacks.private_sum import GaussianSum, plain_sum

KEY = bytes(range(32))
STEPS, NOISE, CANARIES = 100, 20.0, 1000
CLAIM = Claim(1.9931, 1e-5)  # sqrt(100) / 20 = 0.5, of which the exact ε is 1.993091


@settings(deadline=None)
@given(st.integers(1, 14), st.integers(0, 14), st.floats(0, 4), st.sampled_from([0, 1e-3, 0.05]))
def test_the_bound_is_the_papers_sum(guesses, right, epsilon, delta):
    right = min(right, guesses)
    p = 1 / (1 + math.exp(-epsilon))
    law = [math.comb(guesses, k) * p**k * (1 - p) ** (guesses - k) for k in range(guesses + 1)]
    beta = sum(law[right:])
    alpha = max((sum(law[right - i : right]) / i for i in range(1, right + 1)), default=0)
    slow = min(1, beta + alpha * 2 * 20 * delta)
    assert chance_of(right, guesses, 20, epsilon, delta) == pytest.approx(slow, abs=1e-9)


@given(st.integers(5, 300), st.floats(0, 1), st.sampled_from([0, 1e-6, 1e-4]))
@settings(deadline=None, max_examples=25)
def test_the_bound_refutes_exactly_what_lies_below(guesses, fraction, delta):
    right = int(fraction * guesses)
    bound = epsilon_at_least(right, guesses, guesses, delta)
    if bound > 0:
        assert chance_of(right, guesses, guesses, bound - 1e-3, delta) < 0.05
    assert chance_of(right, guesses, guesses, bound + 1e-3, delta) > 0.05
    assert bound <= epsilon_at_least(min(right + 1, guesses), guesses, guesses, delta)


def test_all_of_800_guesses_right_bound_epsilon_by_the_published_figure():
    assert epsilon_at_least(800, 800, 1000, 1e-5) == pytest.approx(5.56, abs=0.005)
    # Without δ by hand: pʳ = 0.05 with p = 1 / (1 + e^−ε).
    p = 0.05 ** (1 / 800)
    assert epsilon_at_least(800, 800, 1000, 0) == pytest.approx(math.log(p / (1 - p)), abs=1e-5)


def test_randomised_response_is_rarely_accused():
    # Exactly (1, 0)-private and the worst that is: its bound lies above 1 in at most 5 % of the runs.
    claim, rng = Claim(1, 0), np.random.default_rng(3)

    def respond(included):
        return np.where(rng.random(len(included)) < math.e / (1 + math.e), included, ~included) + 1e-9 * rng.random(
            len(included)
        )

    found = [audit(respond, 300, claim, seed)[0] for seed in range(100)]
    accused = sum(each.verdict == "exceeds" for each in found)
    assert accused <= 100 * 0.05 + 4 * (100 * 0.05 * 0.95) ** 0.5
    assert np.median([each.success for each in found]) > 0.4  # and it is not blind


@pytest.mark.parametrize(
    ("private_sum", "norm", "low", "high"),
    [  # bands around the figures of a run of its own; several shares are tested here, so they differ a little
        (GaussianSum(1, NOISE, SecureRandom(KEY)), 5, 0.2, 1.1),
        (GaussianSum(1, NOISE / 2, SecureRandom(KEY)), 5, 1.0, 2.4),
        (GaussianSum(1, NOISE / 10, SecureRandom(KEY)), 5, 5.2, 5.7),
        (GaussianSum(10, NOISE / 10, SecureRandom(KEY)), 100, 5.2, 5.7),
        (plain_sum, 1, 5.2, 5.7),
    ],
    ids=["correct", "half the noise", "a tenth of the noise", "clips at ten times the norm", "no noise"],
)
def test_a_gaussian_sum_and_its_broken_likes(private_sum, norm, low, high):
    (finding,) = audit(dirac(private_sum, STEPS, norm), CANARIES, CLAIM, seed=0)
    assert low < finding.success < high
    assert finding.verdict == ("exceeds" if low > CLAIM.epsilon else "within")
    assert finding.interval == (finding.success, math.inf)


def test_a_missing_clip_is_caught():
    noise = SecureRandom(KEY)
    (finding,) = audit(dirac(lambda rows: rows.sum(0) + NOISE * noise.normal(rows.shape[1]), STEPS, 5), 1000, CLAIM, 0)
    assert finding.verdict == "exceeds"


def test_scores_that_are_none_are_refused():
    with pytest.raises(PrivacyError, match="one finite"):
        audit(lambda included: np.full(len(included), np.nan), 10, CLAIM, 0)


def made(side=16, patients=12, classes=("no", "yes")):
    random = np.random.default_rng(0)
    return Dataset(
        name="made",
        images=random.integers(0, 256, (patients, 1, side, side), dtype=np.uint8),
        patients=np.array([f"p{i}" for i in range(patients)]),
        sites=np.zeros(patients, np.int64),
        site_names=("here",),
        labels=np.arange(patients) % len(classes),
        classes=classes,
    )


def real(noise, model="se-convnet", classes=("no", "yes"), **changes):
    """A training of the platform with 200 canaries, and what twenty full steps of noise 8 cost."""
    base = {
        "model.name": model,
        "model.width": 4,
        "task.name": "binary" if len(classes) == 2 else "multiclass",
        "train.augment": False,
        "train.optimizer": "sgd",
        "train.momentum": 0.0,
        "train.weight-decay": 0.0,
        "train.learning-rate": 0.01,
        "train.local-epochs": 20,
        "privacy.mechanism": "gaussian",
        "privacy.sampling-probability": 1.0,
    }
    config = load_run_config({**base, **changes})
    task = build_task(config.task, classes, ())
    data = task.prepare(made(classes=classes))

    def run(model, patients):
        if noise is None:
            train(model, task, patients, config.train, seed=1)
        else:
            private = PrivateTraining(config.train, config.privacy, noise, random=SecureRandom(KEY))
            train_privately(model, task, patients, private)

    build = lambda: build_model(config.model, 1, task.outputs, 16, seed=0)  # noqa: E731
    return audit(Planted(build, run, data), 200, Claim(price([Repeated(Gaussian(8.0), 20)], 1e-5), 1e-5), seed=0)[0]


def test_the_private_training_of_the_platform_keeps_its_claim_and_leaks_something():
    finding = real(8.0)
    assert finding.claimed_bound == pytest.approx(2.27, abs=0.05)
    assert finding.verdict == "within"
    assert real(4.0).success > 0


@pytest.mark.parametrize("noise", [0.8, None], ids=["a tenth of the noise", "not private"])
def test_a_real_training_that_breaks_its_claim_is_caught(noise):
    assert real(noise).verdict == "exceeds"


def test_canaries_of_several_classes_and_of_a_transformer_are_caught_too():
    assert real(None, model="vit-tiny", classes=("a", "b", "c")).verdict == "exceeds"


def test_more_canaries_than_pixels_are_refused():
    with pytest.raises(ConfigError, match="257 canaries"):
        Planted(lambda: None, lambda model, data: None, made())(np.ones(257, bool))
