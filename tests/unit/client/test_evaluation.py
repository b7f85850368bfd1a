"""Evaluation: predictions of one model or several, and sums that add."""

import numpy as np
import pytest
import torch

from client import evaluation
from client.evaluation import LossSum, metric_sums, predict
from common.arrays import model_arrays
from common.errors import ConsiliumError
from common.metrics import METRICS
from tests.federations import same_arrays


def test_one_model_is_its_own_ensemble(make_model, make_data, task):
    model, data = make_model(), make_data()
    found = predict([model], task, data)
    batch = data.batch(np.arange(len(data)), torch.device("cpu"))
    with torch.no_grad():
        expected = model.eval()(batch.images).double().sigmoid().numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-7)
    assert np.array_equal(found.labels, data.labels)
    assert found.patients.tolist() == data.patients.tolist()
    twice = predict([model, model], task, data)
    assert np.array_equal(twice.probabilities, found.probabilities)


def test_an_ensemble_averages_probabilities_not_logits(make_model, make_data, task):
    data, models = make_data(), [make_model(seed=seed) for seed in (0, 1, 2)]
    alone = [predict([model], task, data).probabilities for model in models]
    np.testing.assert_allclose(predict(models, task, data).probabilities, np.mean(alone, axis=0), rtol=1e-12)


def test_batches_do_not_matter(make_model, make_data, task, monkeypatch):
    model, data = make_model(), make_data(23)
    whole, loss = predict([model], task, data), LossSum()
    monkeypatch.setattr(evaluation, "BATCH", 5)
    parts = predict([model], task, data, loss)
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, atol=1e-7)
    batch = data.batch(np.arange(23), torch.device("cpu"))
    with torch.no_grad():
        assert loss.value == pytest.approx(23 * task.loss(model.eval()(batch.images), batch).item(), rel=1e-5)


def test_large_images_come_in_small_batches(make_model, make_data, task, monkeypatch):
    sizes = []
    batch = type(make_data()).batch
    monkeypatch.setattr(
        type(make_data()), "batch", lambda self, i, device: (sizes.append(len(i)), batch(self, i, device))[1]
    )
    monkeypatch.setattr(evaluation, "PIXELS", 3 * 16 * 16)
    predict([make_model()], task, make_data(7))
    assert sizes == [3, 3, 1]
    monkeypatch.setattr(evaluation, "PIXELS", 10)
    predict([make_model()], task, make_data(2))
    assert sizes[3:] == [1, 1]


def test_dropout_is_off_and_every_mode_is_put_back(make_model, make_data, task):
    learning, judging = make_model(dropout=0.9).train(), make_model().eval()
    before = [model_arrays(learning), model_arrays(judging)]
    first = predict([learning, judging], task, make_data())
    assert np.array_equal(first.probabilities, predict([learning, judging], task, make_data()).probabilities)
    assert (learning.training, judging.training) == (True, False)
    assert same_arrays(before[0], model_arrays(learning))
    assert same_arrays(before[1], model_arrays(judging))
    assert all(parameter.grad is None for parameter in learning.parameters())


def test_modes_are_put_back_after_an_error(make_model, make_data, task):
    model = make_model().train()
    broken = make_model()
    broken.head = torch.nn.Linear(3, 1)
    with pytest.raises(RuntimeError):
        predict([model, broken], task, make_data())
    assert model.training


def test_sums_of_two_halves_add_up_to_the_whole(make_model, make_data, task):
    model, data = make_model(), make_data(40)
    half = [predict([model], task, data.subset(np.arange(start, start + 20))) for start in (0, 20)]
    whole = metric_sums(task, predict([model], task, data))
    assert set(whole) == {name for name in task.metrics if not METRICS.load(name)().not_poolable}
    for name, sums in whole.items():
        np.testing.assert_allclose(sum(metric_sums(task, each)[name] for each in half), sums, rtol=1e-9, atol=1e-12)
        assert sums.dtype == np.float64


def test_predictions_that_are_not_finite_are_refused_or_settled(make_model, make_data, task):
    model, data = make_model(), make_data(8)
    sound = predict([model], task, data).probabilities
    with torch.no_grad():
        model.inner.weight.fill_(torch.inf)  # zero pixels times infinity are NaN
    with pytest.raises(ConsiliumError, match="not finite"):
        predict([model], task, data)
    settled = predict([model], task, data, settle=True).probabilities
    assert settled.shape == sound.shape
    assert (settled == 0.5).all()
