"""Local training: decided by its seed, faithful to the papers, and without a trace outside."""

from itertools import chain

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.extras import Extras, proximal
from client.training import build_optimizer, train
from common.arrays import model_arrays
from common.seeds import generator
from tests.federations import same_arrays


@pytest.fixture
def trained(make_model, make_data, task, settings):
    def run(seed=3, mu=0.0, dropout=0.0, data=None, model_seed=0, **changes):
        model = make_model(dropout, model_seed)
        result = train(model, task, data or make_data(), settings(**changes), seed, Extras(mu))
        return model, result

    return run


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_seed_decides_everything(trained, optimizer):
    first, result = trained(seed=3, dropout=0.5, optimizer=optimizer, local_epochs=2)
    torch.rand(7), np.random.rand(7)
    again, repeated = trained(seed=3, dropout=0.5, optimizer=optimizer, local_epochs=2)
    assert same_arrays(model_arrays(first), model_arrays(again))
    assert result == repeated


@pytest.mark.parametrize(
    "changes", [{}, {"augment": False}, {"dropout": 0.5, "augment": False, "batch_size": 4096}], ids=str
)
def test_shuffle_augmentation_and_dropout_each_follow_the_seed(trained, changes):
    """With one batch of everything and no augmentation, only dropout is left to differ."""
    first, _ = trained(seed=3, **changes)
    other, _ = trained(seed=4, **changes)
    assert not same_arrays(model_arrays(first), model_arrays(other))


def test_without_anything_random_the_seed_does_not_matter(trained):
    """The order of one batch's rows changes sums of floats in their last bits only."""
    first, _ = trained(seed=3, augment=False, batch_size=4096)
    other, _ = trained(seed=4, augment=False, batch_size=4096)
    for name, array in model_arrays(first).items():
        np.testing.assert_allclose(array, model_arrays(other)[name], atol=1e-5)


def test_nothing_is_drawn_from_the_global_states(trained):
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    trained(dropout=0.5)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_the_global_states_are_put_back_after_an_error_too(make_model, make_data, task, settings):
    model = make_model(dropout=0.5)
    model.head = torch.nn.Linear(9, 1)  # fails after dropout has drawn
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="shapes"):
        train(model, task, make_data(), settings(), seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_loss_falls(trained, make_data):
    losses = [trained(local_epochs=epochs)[1].loss_sum / 40 for epochs in (1, 20)]
    assert losses[1] < 0.2 < losses[0]


def test_the_loss_sum_is_of_the_last_epoch_over_all_images(make_model, make_data, task, settings):
    """With a step too small to matter the training loss is the plain loss of the start, times the images."""
    model, data = make_model(), make_data(19)
    result = train(model, task, data, settings(learning_rate=1e-30, augment=False, local_epochs=3), seed=1)
    batch = data.batch(np.arange(19), torch.device("cpu"))
    assert result.images == 19
    assert result.loss_sum == pytest.approx(19 * task.loss(make_model()(batch.images), batch).item(), rel=1e-5)


def test_every_image_is_seen_once_per_epoch(make_model, make_data, task, settings, monkeypatch):
    data, seen = make_data(19), []
    batch = type(data).batch
    monkeypatch.setattr(
        type(data), "batch", lambda self, index, device: (seen.append(index.tolist()), batch(self, index, device))[1]
    )
    train(make_model(), task, data, settings(local_epochs=2), seed=1)
    assert [len(each) for each in seen] == [8, 8, 3, 8, 8, 3]
    first, second = (list(chain.from_iterable(part)) for part in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == list(range(19))
    assert first != second


def one_sgd_step(make_model, make_data, task, settings, mu, start):
    """Train one epoch of one batch by plain SGD of rate 0.1 from `start`; the anchor is where it begins."""
    model = make_model()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), start, strict=True):
            parameter.copy_(value)
    plain = settings(optimizer="sgd", momentum=0.0, weight_decay=0.0, learning_rate=0.1, batch_size=10, augment=False)
    data = make_data(20)
    train(model, task, data, plain, seed=5, extras=Extras(mu))
    return model, data


def test_fedprox_by_hand(make_model, make_data, task, settings):
    """Two SGD steps. The first has w = w₀: no pull. The second's gradient gains μ·(w₁ − w₀), the derivative of
    (μ/2)·‖w − w₀‖²; without the square it would be μ·(w₁ − w₀)/‖w₁ − w₀‖.
    """
    mu, rate = 3.0, 0.1
    start = [parameter.detach().clone() for parameter in make_model().parameters()]
    model, data = one_sgd_step(make_model, make_data, task, settings, mu, start)

    twin = make_model()
    order = generator(5, "shuffle", 0).permutation(20)
    for rows in (order[:10], order[10:]):
        batch = data.batch(rows, torch.device("cpu"))
        twin.zero_grad()
        F.binary_cross_entropy_with_logits(twin(batch.images)[:, 0], batch.labels.float()).backward()
        with torch.no_grad():
            for parameter, origin in zip(twin.parameters(), start, strict=True):
                parameter -= rate * (parameter.grad + mu * (parameter - origin))
    for parameter, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6)


def test_the_proximal_term_is_half_mu_times_the_squared_distance(make_model):
    model = make_model()
    anchor = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert proximal(model, anchor, 4.0).item() == pytest.approx(0.5 * 4.0 * 0.25 * count, rel=1e-5)
    proximal(model, anchor, 4.0).backward()
    for parameter in model.parameters():
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, 4.0 * 0.5))


def test_a_strong_pull_keeps_the_model_near(trained, make_model):
    def distance(mu):
        model, _ = trained(mu=mu, optimizer="sgd", momentum=0.0, local_epochs=5, learning_rate=0.02)
        pairs = zip(model.parameters(), make_model().parameters(), strict=True)
        return sum((now - then).square().sum().item() for now, then in pairs)

    assert distance(20.0) < distance(1.0) < distance(0.0)


def test_class_weights_are_the_inverse_frequency(make_model, make_data, task, settings):
    """3 of 4 negative: weights (2/3, 2) before scaling, so each class pulls alike; the twin weighs by hand."""
    data = make_data(40)
    rows = np.concatenate([np.flatnonzero(data.labels == 0)[:12], np.flatnonzero(data.labels == 1)[:4]])
    skewed = data.subset(rows)
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.1, "batch_size": 16}
    plain["augment"] = False
    model = make_model()
    train(model, task, skewed, settings(class_weights="balanced", **plain), seed=1)

    twin = make_model()
    batch = skewed.batch(np.arange(16), torch.device("cpu"))
    losses = F.binary_cross_entropy_with_logits(twin(batch.images)[:, 0], batch.labels.float(), reduction="none")
    weight = torch.where(batch.labels == 1, 16 / (2 * 4), 16 / (2 * 12))
    ((losses * weight).sum() / weight.sum()).backward()
    for parameter, old in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, old - 0.1 * old.grad, rtol=1e-4, atol=1e-6)

    unweighted = make_model()
    train(unweighted, task, skewed, settings(**plain), seed=1)
    assert not same_arrays(model_arrays(unweighted), model_arrays(model))


def test_each_optimizer_setting_reaches_the_optimizer(make_model, settings):
    model = make_model()
    adamw = build_optimizer(model, settings(weight_decay=0.25, learning_rate=0.125))
    assert isinstance(adamw, torch.optim.AdamW)
    assert (adamw.defaults["lr"], adamw.defaults["weight_decay"]) == (0.125, 0.25)
    sgd = build_optimizer(model, settings(optimizer="sgd", momentum=0.5, weight_decay=0.25, learning_rate=0.125))
    assert isinstance(sgd, torch.optim.SGD)
    assert [sgd.defaults[key] for key in ("lr", "momentum", "weight_decay")] == [0.125, 0.5, 0.25]


def test_float_images_train_as_bytes_do(trained, make_data):
    """x / 255 as float32 is the same image."""
    first, _ = trained(data=make_data(), augment=False)
    other, _ = trained(data=make_data(floats=True), augment=False)
    for name, array in model_arrays(first).items():
        np.testing.assert_allclose(array, model_arrays(other)[name], atol=1e-4)


def test_amp_on_cpu_changes_nothing(trained):
    assert same_arrays(model_arrays(trained(amp=True)[0]), model_arrays(trained()[0]))
