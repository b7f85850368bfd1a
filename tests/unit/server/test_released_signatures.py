"""A site's noisy vector is shown where it says more than its noise, and not where it would pass for a shift."""

import numpy as np
import pytest

from common.attention.prior import Prior
from common.config import load_run_config
from common.privacy.signature import routed, sensitivity
from server.released_signatures import ReleasedSignatures, said_beyond_noise

D = 32
PRIVACY = load_run_config({"privacy.mechanism": "gaussian"}).privacy


def releases(patients, moved, seed=0):
    """Release sites whose mean signature lies `moved` off along one axis, each with its noise."""
    random = np.random.default_rng(seed)
    found = {}
    for number, count in enumerate(patients):
        means = random.normal(size=(count, D)) * 0.01
        means[:, number] += moved
        total = routed(means, np.arange(count) % 2, 2, np.zeros(D), PRIVACY.signature_clip)
        noise = PRIVACY.signature_noise_multiplier * sensitivity(PRIVACY.signature_clip)
        found[f"s{number}"] = total + noise * random.normal(size=len(total))
    return found


def test_large_sites_that_lie_apart_are_shown_with_their_means():
    found = said_beyond_noise(releases([20_000] * 4, 0.15), 2, np.zeros(D), PRIVACY, "schema")
    assert set(found) == {"s0", "s1", "s2", "s3"}
    for number in range(4):
        np.testing.assert_allclose(found[f"s{number}"], 0.15 * np.eye(D)[number], atol=0.005)


@pytest.mark.parametrize(
    ("patients", "moved"),
    [
        ([300] * 4, 0.15),  # the noise is larger than what it hides
        ([20_000] * 4, 0.0),  # nothing but noise lies between them
        ([20_000], 0.15),  # nobody to lie apart from
        ([1, 1, 1], 0.15),
    ],
)
def test_what_noise_alone_could_have_made_is_not_shown(patients, moved):
    for seed in range(5):
        assert said_beyond_noise(releases(patients, moved, seed), 2, np.zeros(D), PRIVACY, "schema") == {}


def test_the_small_among_large_is_left_out():
    assert set(said_beyond_noise(releases([20_000, 20_000, 20_000, 300], 0.15), 2, np.zeros(D), PRIVACY, "schema")) == {
        "s0",
        "s1",
        "s2",
    }


@pytest.mark.parametrize(
    ("changes", "noises"),
    [
        ({}, 4),  # each of four sites adds all of it
        ({"privacy.placement": "central"}, 1),
        # Of six sites t = 4 open a sum, one may collude: shares are sized for three, and four are in it.
        ({"privacy.placement": "distributed", "privacy.mechanism": "skellam"}, 4 / 3),
    ],
)
def test_the_noise_of_a_prior_is_that_of_its_sum(changes, noises):
    secure = {"secure-aggregation.enabled": True, "secure-aggregation.colluders": 1} if changes else {}
    config = load_run_config({"privacy.mechanism": "gaussian", **secure, **changes})
    prior = Prior("s", 500, np.zeros(D), np.zeros(D))
    expected = 10 * 3**0.5 * 0.25 * (2 * noises) ** 0.5 / 500  # z = 10, C = 0.25, two classes' slots
    assert ReleasedSignatures(config, 2, "s").prior_noise(prior, 4, 6) == pytest.approx(expected)
