"""The released distance of one site: its value by hand, its sensitivity by search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.attention.prior import Prior
from common.config import load_run_config
from common.errors import DataError
from common.privacy.distance_release import RIDGE, DistanceRelease
from common.randomness import SecureRandom

D = 4
PRIVACY = load_run_config({"privacy.mechanism": "gaussian"}).privacy


def release(fewest=10, patients=40, clip=1.0, z=0.0):
    prior = Prior("s", patients, np.zeros(D), np.full(D, 1 - RIDGE))
    return DistanceRelease(prior, clip, fewest, z)


def test_two_halves_stand_twice_as_far_apart_as_each_from_the_mean():
    # n = 20 of N = 40 at +0.3 along one axis; the others then lie at −0.3: distance 0.6.
    means = np.zeros((20, D))
    means[:, 0] = 0.3
    assert release(fewest=20).exact(means) == pytest.approx(0.6)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), patients=st.integers(10, 30), clip=st.floats(0.01, 3), scale=st.floats(0, 50))
def test_a_patient_moves_the_distance_by_at_most_the_sensitivity(seed, patients, clip, scale):
    means = np.random.default_rng(seed).normal(size=(patients + 1, D)) * scale
    with_bound = release(clip=clip)
    assert abs(with_bound.exact(means) - with_bound.exact(means[:-1])) <= with_bound.sensitivity * (1 + 1e-9)


def test_the_sensitivity_does_not_depend_on_the_length():
    # The figure of research 2.5 for four equal sites of n patients: Δ = 2.67·C/n.
    assert release(fewest=100, patients=400).sensitivity == pytest.approx(2.6667 / 100, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(1e-4, 0.05), patients=st.integers(40, 4000))
def test_a_site_like_all_others_seems_to_lie_at_the_floor(seed, noise, patients):
    """Its patients lie at the true mean; the prior's mean and variance are off by the noise of a release."""
    random, length = np.random.default_rng(seed), 400
    truth, spread = random.normal(size=length) * 0.1, random.uniform(0, 0.03, length) ** 2
    seen = np.maximum(1e-6, spread + PRIVACY.signature_clip * noise * random.normal(size=length))
    prior = Prior("s", patients, truth + noise * random.normal(size=length), seen)
    one = DistanceRelease.planned(prior, noise, PRIVACY)
    assert one.exact(np.tile(truth, (30, 1))) == pytest.approx(min(one.floor, one.clip * one._leverage), rel=0.15)


def test_the_ridge_and_the_clip_follow_the_noise_of_the_prior():
    prior = Prior("s", 400, np.zeros(D), np.zeros(D))
    exact, noisy = (DistanceRelease.planned(prior, noise, PRIVACY) for noise in (0.0, 0.02))
    assert (exact.ridge, exact.clip, exact.floor) == (RIDGE, 2.0, 0.0)  # √d of four
    assert noisy.ridge == pytest.approx(RIDGE + 3 * 0.25 * 0.02)
    assert noisy.clip == pytest.approx(min(2.0, 0.25 / noisy.ridge**0.5))
    assert noisy.floor == pytest.approx(2 * 0.02 / noisy.ridge**0.5 * 400 / 380)


def test_noise_is_as_said():
    one = release(z=2.0)
    random = SecureRandom(bytes(range(32)))
    drawn = [one.release(np.zeros((12, D)), random) for _ in range(4000)]
    assert np.std(drawn) == pytest.approx(one.noise, rel=0.06)
    assert abs(np.mean(drawn)) < 5 * one.noise / 4000**0.5


def test_a_patient_who_cannot_be_measured_counts_as_one_at_the_prior():
    means = np.full((12, D), 0.1)
    means[3, 1] = np.nan
    at_the_prior = means.copy()
    at_the_prior[3] = 0.0
    assert release().exact(means) == release().exact(at_the_prior)


def test_too_few_patients_are_refused():
    with pytest.raises(DataError, match="Declare fewer"):
        release().exact(np.zeros((9, D)))
    with pytest.raises(DataError, match="Let more sites"):
        release(fewest=40)
