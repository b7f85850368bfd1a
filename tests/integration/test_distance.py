"""How far a site lies from the others: what the server records is the exact distance and noise, paid for once."""

import numpy as np
import pytest

import server.released_signatures
from client.distance import tell_distance
from client.site import MEMBERS, open_site
from common.arrays import load_arrays
from common.attention.schema import schema_of
from common.attention.signature import signatures
from common.errors import BudgetExhaustedError, ProtocolError
from common.messages import DistanceRequest
from common.models.build import build_model
from common.randomness import SecureRandom
from tests.federations import SITES, small_config, train_small

PRIVATE = {
    "privacy__mechanism": "gaussian",
    "privacy__fewest_patients": 2,
    "privacy__sampling_probability": 0.5,
    "privacy__signature_noise_multiplier": 1.0,
    "privacy__distance_noise_multiplier": 1.0,
    "privacy__epsilon": 16.0,
    "attention__images_per_patient": 100,
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    config = small_config(rounds=2, out=str(tmp_path_factory.mktemp("distance")), **PRIVATE)
    return config, *train_small(config)


def model_of(config, site, end):
    federation, task = site.federation, site.task
    model = build_model(config.model, federation.channels, task.outputs, federation.image_size, 0, dense=task.dense)
    load_arrays(model, end.arrays)
    return model.eval()


def by_hand(config, site, end):
    """Every image by itself, means of patients, whitened by the prior: slowly, and without the code under test."""
    model, data, prior = model_of(config, site, end), site.data.train, end.prior
    schema = schema_of(model)
    rows = np.concatenate(
        [signatures(model, data.batch(np.array([n]), "cpu").images, schema).numpy() for n in range(len(data))]
    )
    means = [rows[data.patients == patient].mean(axis=0) for patient in np.unique(data.patients)]
    # Two classes at three sites, each slot with noise z·√3·C, z = 1; a variance is C times a moment.
    noise = 3**0.5 * 0.25 * 6**0.5 / prior.patients
    ridge = 1e-4 + 3 * 0.25 * noise
    clip = min(schema.length**0.5, 0.25 / ridge**0.5)
    white = [(mean - prior.mean) / np.sqrt(prior.variance + ridge) for mean in means]
    white = [row * min(1.0, clip / np.linalg.norm(row)) for row in white]
    n, others = config.privacy.fewest_patients, prior.patients - config.privacy.fewest_patients
    distance = np.linalg.norm(np.mean(white, axis=0)) * prior.patients / others
    floor = (noise**2 / (prior.variance + ridge)).sum() ** 0.5 * prior.patients / others
    return distance, 2**0.5 * 2 * clip * (1 / n + 1 / others), floor, noise


def test_the_record_holds_the_distance_with_its_noise(ended):
    config, end, records = ended
    for site, (distance, noise, seeming) in records[-1].distances.items():
        exact, spread, floor, _ = by_hand(config, open_site(config, {MEMBERS: site}), end)
        assert noise == pytest.approx(spread)  # of Laplace noise; the multiplier is one
        assert seeming == pytest.approx(floor)
        assert abs(distance - exact) < 15 * noise
        assert distance != pytest.approx(exact, abs=1e-9)


def test_without_noise_it_is_the_distance_by_hand_and_asking_again_is_paid_for_again(ended, monkeypatch):
    config, end, _ = ended
    monkeypatch.setattr(SecureRandom, "laplace", lambda self, count: np.zeros(count))
    site = open_site(config.replace({"privacy.epsilon": 99.0}), {MEMBERS: SITES[0]})
    exact, _, _, noise = by_hand(config, site, end)
    request = DistanceRequest(arrays=end.arrays, prior=end.prior.arrays(), prior_noise=noise)
    model = model_of(config, site, end)
    reply = tell_distance(config.replace({"privacy.epsilon": 99.0}), site, model, request)
    assert reply.distance == pytest.approx(exact, rel=1e-5)
    site = open_site(config, {MEMBERS: SITES[1]})
    with pytest.raises(BudgetExhaustedError):  # the run's plan fills its budget
        tell_distance(config, site, model, request)


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ({"privacy.distance-noise-multiplier": 0.0}, SITES[0]),
        ({"attention.every": 0}, SITES[0]),
        ({"privacy.mechanism": "none"}, SITES[0]),
        ({"data.held-out": "island"}, "island"),  # it never takes part in a release
    ],
)
def test_what_the_settings_do_not_release_is_not_told(ended, changes, member):
    config, end, _ = ended
    config = config.replace(changes)
    site = open_site(config, {MEMBERS: member})
    request = DistanceRequest(arrays=end.arrays, prior=end.prior.arrays(), prior_noise=0.0)
    with pytest.raises(ProtocolError, match="Ask for what they release"):
        tell_distance(config, site, model_of(config, site, end), request)


def test_a_prior_of_another_model_is_refused(ended):
    config, end, _ = ended
    site = open_site(config, {MEMBERS: SITES[0]})
    prior = {**end.prior.arrays(), "schema": np.frombuffer(b"another", np.uint8)}
    with pytest.raises(ProtocolError, match="another model"):
        tell_distance(
            config, site, model_of(config, site, end), DistanceRequest(arrays=end.arrays, prior=prior, prior_noise=0.0)
        )


def test_single_vectors_stand_in_the_record_where_they_may_be_shown_and_nowhere_else(ended, monkeypatch, tmp_path):
    config, _, records = ended
    assert all(record.vectors == {} for record in records)  # so few patients say less than the noise
    monkeypatch.setattr(
        server.released_signatures, "said_beyond_noise", lambda told, *rest: {site: [1.0] for site in told}
    )
    _, records = train_small(config.replace({"out": str(tmp_path)}))
    assert [set(record.vectors) for record in records] == [set(), set(SITES)]
    for name, changes in (
        ("sums", {"secure-aggregation.enabled": True}),
        ("central", {"privacy.placement": "central"}),
    ):
        changed = config.replace({"out": str(tmp_path / name), **changes})
        assert all(record.vectors == {} for record in train_small(changed)[1])


@pytest.mark.parametrize("noise", [-1.0, float("nan"), float("inf")])
def test_a_noise_that_is_none_is_refused(ended, noise):
    config, end, _ = ended
    site = open_site(config, {MEMBERS: SITES[0]})
    request = DistanceRequest(arrays=end.arrays, prior=end.prior.arrays(), prior_noise=noise)
    with pytest.raises(ProtocolError, match="finite, and 0 or more"):
        tell_distance(config, site, model_of(config, site, end), request)
