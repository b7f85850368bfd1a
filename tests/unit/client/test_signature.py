"""The site's signature: of the patients chosen by the seed, with the model left as it was."""

import numpy as np
import pytest
import torch

from client import signature
from client.signature import add_unread, measure
from common.arrays import model_arrays
from common.attention.schema import schema_of
from common.attention.signature import SignatureMeter, choose_images, signatures
from common.config import load_run_config
from tests.federations import same_arrays


@pytest.fixture
def attention():
    def make(**changes):
        return load_run_config(
            {f"attention.{key.replace('_', '-')}": value for key, value in changes.items()}
        ).attention

    return make


def test_it_is_the_sum_over_patients_of_their_mean(make_model, make_data, attention):
    """Slow twin: one image at a time, mean per patient, then sums."""
    model, data = make_model(), make_data(21)
    found = measure(model, data, attention(), seed=3)[0]
    rows = [signatures(model, data.batch(np.array([row]), torch.device("cpu")).images)[0].numpy() for row in range(21)]
    means = [
        np.mean([rows[row] for row in np.flatnonzero(data.patients == patient)], axis=0)
        for patient in np.unique(data.patients)
    ]
    assert found.patients == len(means) == 11
    assert found.schema == schema_of(model).id
    np.testing.assert_allclose(found.total, np.sum(means, axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.squares, np.sum(np.square(means), axis=0), rtol=1e-6)


def test_limits_and_seed_choose_the_patients(make_model, make_data, attention):
    model, data = make_model(), make_data(40)
    few = attention(patients=4, images_per_patient=1)
    found = measure(model, data, few, seed=3)[0]
    assert found.patients == 4
    chosen = data.subset(choose_images(data.patients, 1, 4, 3))
    assert len(chosen) == 4
    whole = measure(model, chosen, attention(), seed=99)[0]
    np.testing.assert_allclose(found.total, whole.total, rtol=1e-6)
    assert not np.array_equal(measure(model, data, few, seed=4)[0].total, found.total)
    assert np.array_equal(measure(model, data, few, seed=3)[0].total, found.total)


def test_batches_do_not_matter(make_model, make_data, attention, monkeypatch):
    model, data = make_model(), make_data(21)
    whole = measure(model, data, attention(), seed=3)[0]
    monkeypatch.setattr(signature, "BATCH", 4)
    np.testing.assert_allclose(measure(model, data, attention(), seed=3)[0].total, whole.total, rtol=1e-6)


def test_the_model_is_left_as_it_was(make_model, make_data, attention):
    model = make_model(dropout=0.9).train()
    model.norm.eval()  # a mode of its own
    before, state = model_arrays(model), torch.get_rng_state()
    first = measure(model, make_data(), attention(), seed=3)[0]
    assert np.array_equal(first.total, measure(model, make_data(), attention(), seed=3)[0].total)
    assert same_arrays(model_arrays(model), before)
    assert model.training
    assert not model.norm.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_without_attention_has_none(make_model, make_data, attention):
    model = make_model()
    model.attention_sites = ()
    assert measure(model, make_data(), attention(), seed=3)[0] is None


def test_an_image_that_cannot_be_read_spoils_its_own_patient_only(make_model, make_data):
    model, data = make_model(), make_data(6)
    images = data.batch(np.arange(6), torch.device("cpu")).images
    whole, some = SignatureMeter(model), SignatureMeter(model)
    add_unread(whole, images, data.patients)
    images[3] = torch.nan
    add_unread(some, images, data.patients)
    assert not np.isfinite(some.means()["p1"]).any()
    for patient in ("p0", "p2"):
        np.testing.assert_allclose(some.means()[patient], whole.means()[patient], rtol=1e-6)
