"""The class-routed release: its sensitivity by search, its moments by hand, and what noise does to it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import AggregationError, DataError
from common.privacy.signature import may_be_shown, opened, pooled_prior, routed, sensitivity
from common.randomness import SecureRandom

D = 5


def made(patients, seed, scale=1.0):
    random = np.random.default_rng(seed)
    return random.normal(size=(patients, D)) * scale


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    patients=st.integers(0, 12),
    classes=st.integers(1, 4),
    clip=st.floats(1e-3, 10),
    scale=st.floats(0, 1e6),
)
def test_a_patient_moves_the_release_by_at_most_the_sensitivity(seed, patients, classes, clip, scale):
    random = np.random.default_rng(seed)
    means, reference = made(patients + 1, seed, scale), random.normal(size=D)
    label = random.integers(0, classes, patients + 1)
    whole = routed(means, label, classes, reference, clip)
    without = routed(means[:-1], label[:-1], classes, reference, clip)
    assert np.linalg.norm(whole - without) <= sensitivity(clip) * (1 + 1e-9)


def test_the_sensitivity_is_reached():
    # A patient at distance C along one axis: v = C e₁, v∘v/C = C e₁, and C for the count: √3·C.
    means = np.zeros((1, D))
    means[0, 0] = 0.25
    row = routed(means, np.zeros(1, np.int64), 1, np.zeros(D), 0.25)
    assert np.linalg.norm(row) == pytest.approx(sensitivity(0.25))


def test_without_noise_the_release_gives_back_counts_means_and_variances():
    means, classes = made(40, 1, 0.05), np.arange(40) % 2
    reference = np.full(D, 0.01)
    found = opened(routed(means, classes, 2, reference, 5.0), 2, reference, 5.0, noise=0.0)
    assert found.patients.tolist() == [20, 20]
    for each in (0, 1):
        np.testing.assert_allclose(found.mean[each], means[classes == each].mean(axis=0))
        np.testing.assert_allclose(found.variance[each], means[classes == each].var(axis=0))


def test_releases_of_sites_add():
    means, classes, reference = made(30, 2, 0.1), np.arange(30) % 3, np.zeros(D)
    parts = [routed(means[a:b], classes[a:b], 3, reference, 0.2) for a, b in ((0, 11), (11, 30))]
    np.testing.assert_allclose(sum(parts), routed(means, classes, 3, reference, 0.2))


def test_the_pooled_prior_is_that_of_all_patients():
    means = made(25, 3, 0.02)
    prior = pooled_prior(routed(means, np.arange(25) % 4, 4, np.zeros(D), 9.0), 4, np.zeros(D), 9.0, "schema")
    assert prior.patients == 25
    np.testing.assert_allclose(prior.mean, means.mean(axis=0))
    np.testing.assert_allclose(prior.variance, means.var(axis=0))


def test_clipping_is_towards_the_reference():
    means = np.full((1, D), 3.0)
    row = routed(means, np.zeros(1, np.int64), 1, np.ones(D), 0.5)
    np.testing.assert_allclose(row[:D], np.full(D, 0.5 / math.sqrt(D)))


def test_a_rare_class_is_pooled_with_the_others():
    means, classes = made(4000, 4, 0.05), np.zeros(4000, np.int64)
    classes[:3] = 1
    noise = 4 * sensitivity(0.25)
    exact = routed(means, classes, 2, np.zeros(D), 0.25)
    found = opened(exact + noise * SecureRandom().normal(len(exact)), 2, np.zeros(D), 0.25, noise)
    np.testing.assert_allclose(found.mean[0], found.mean[1], atol=0.02)


def test_the_noise_on_the_mean_is_as_computed():
    means, clip, z = made(500, 5, 0.02), 0.25, 3.0
    noise, exact = z * sensitivity(clip), routed(means, np.zeros(500, np.int64), 1, np.zeros(D), clip)
    random = SecureRandom(bytes(range(32)))
    errors = [
        pooled_prior(exact + noise * random.normal(len(exact)), 1, np.zeros(D), clip, "s").mean - means.mean(axis=0)
        for _ in range(400)
    ]
    # The count's own noise (5.2 of 500) moves the mean by a hundredth of itself, which is far below the spread.
    assert np.std(errors) == pytest.approx(noise / 500, rel=0.1)


def test_no_patient_beside_the_noise_is_refused():
    for read in (
        lambda: opened(np.zeros(2 * D + 1), 1, np.zeros(D), 0.25, noise=1.0),
        lambda: pooled_prior(np.zeros(2 * D + 1), 1, np.zeros(D), 0.25, "s"),
    ):
        with pytest.raises(AggregationError, match="Let more patients take part"):
            read()


@pytest.mark.parametrize(
    ("means", "classes", "said"),
    [
        (np.zeros((2, D + 1)), np.zeros(2, np.int64), "measure them with one schema"),
        (np.zeros((2, D)), np.zeros(3, np.int64), "measure them with one schema"),
        (np.zeros((2, D)), np.array([0, 2]), "allowed are 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(means, classes, said):
    with pytest.raises(DataError, match=said):
        routed(means, classes, 2, np.zeros(D), 0.25)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_patient_on_whom_the_model_fails_counts_at_the_reference_and_is_not_told(value):
    # A refusal would cost nothing and tell a server, who chooses the arrays, of single patients.
    means, classes, reference = made(5, 6, 0.05), np.array([0, 1, 0, 1, 0]), np.full(D, 0.1)
    broken, moved = means.copy(), means.copy()
    broken[3, 0], moved[3] = value, reference
    np.testing.assert_array_equal(routed(broken, classes, 2, reference, 0.2), routed(moved, classes, 2, reference, 0.2))


def test_a_site_is_shown_only_when_it_says_more_than_its_noise():
    # research: d = 64, z·√3·C = 3.73·0.433 at ε = 1; 2000 patients say more than the noise, 200 do not.
    noise = 3.73 * sensitivity(0.25)
    assert may_be_shown(noise, 64, 2000, typical_distance=0.03)
    assert not may_be_shown(noise, 64, 200, typical_distance=0.03)
    assert not may_be_shown(noise, 64, 0, typical_distance=0.03)
