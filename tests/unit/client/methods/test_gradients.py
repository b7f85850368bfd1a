"""Methods that change gradients or count steps: by hand, and where they reduce to plain training."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.methods.normalised_steps import worth
from client.training import train
from common.arrays import model_arrays
from common.seeds import generator
from tests.federations import same_arrays


def like(model, value, seed=None):
    rng = np.random.default_rng(seed)
    return {
        name: (np.full(each.shape, value) if seed is None else rng.normal(0, value, each.shape)).astype(np.float32)
        for name, each in model.named_parameters()
    }


def plain(method, make_model, seed=5):
    model = make_model()
    train(model, method.begun.task, method.begun.data, method.begun.train, seed)
    return model_arrays(model)


def test_scaffold_without_variates_is_plain_training_to_the_bit(begin, run, make_model):
    method, model = begin("control-variates")
    run(method, model)
    assert same_arrays(model_arrays(model), plain(method, make_model))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_equal_variates_cancel(begin, run, make_model, optimizer):
    """c_k = c is what equal data lead to: SCAFFOLD is then FedAvg."""
    model = make_model()
    common = like(model, 0.3, seed=1)
    method, model = begin("control-variates", model, shared=common, kept=common, optimizer=optimizer)
    run(method, model)
    assert same_arrays(model_arrays(model), plain(method, make_model))


def test_scaffold_by_hand_and_its_variate_is_option_two(begin, run, make_model):
    """Each step −η (g − c_k + c); then c_k' = c_k − c + (w_global − w_k) / (E η)."""
    start = make_model()
    own, common = like(start, 0.2, seed=1), like(start, 0.2, seed=2)
    method, model = begin("control-variates", shared=common, kept=own, local_epochs=2)
    before = model_arrays(model)
    told = run(method, model)
    twin, data = make_model(), method.begun.data
    for epoch in (0, 1):
        order = generator(5, "shuffle", epoch).permutation(20)
        for rows in (order[:10], order[10:]):
            batch = data.batch(rows, torch.device("cpu"))
            twin.zero_grad()
            F.binary_cross_entropy_with_logits(twin(batch.images)[:, 0], batch.labels.float()).backward()
            with torch.no_grad():
                for name, each in twin.named_parameters():
                    each -= 0.1 * (each.grad - torch.from_numpy(own[name]) + torch.from_numpy(common[name]))
    after, kept = model_arrays(model), method.kept()
    for name, expected in model_arrays(twin).items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)
        second = own[name] - common[name] + (before[name] - after[name]) / (4 * 0.1)
        np.testing.assert_allclose(kept[name], second, atol=2e-5)
        np.testing.assert_allclose(told[name], kept[name] - own[name], atol=1e-7)


def test_steps_are_counted_over_epochs(begin, run):
    method, model = begin("normalised-steps", batch_size=8, local_epochs=3)
    assert run(method, model) == {"steps": np.array(9.0)}  # 20 images: 8 + 8 + 4


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.9), (4, 0.0), (5, 0.5), (30, 0.9)])
def test_momentum_makes_steps_worth_more(steps, momentum):
    """Against heavy-ball descent along a constant gradient of one, which is torch's."""
    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=1.0, momentum=momentum)
    for _ in range(steps):
        w.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
    assert worth(steps, momentum) == pytest.approx(-w.item(), rel=1e-12)


def test_adamw_steps_count_one_each(begin, run):
    method, model = begin("normalised-steps", optimizer="adamw", momentum=0.9, batch_size=10)
    assert run(method, model) == {"steps": np.array(2.0)}
    method, model = begin("normalised-steps", optimizer="sgd", momentum=0.5, batch_size=10)
    assert run(method, model) == {"steps": np.array(1.5 + 1)}


def test_feddyn_by_hand(begin, run, make_model):
    """Gradient g − h_k + α (w − w_global); then h_k' = h_k − α (w_k − w_global)."""
    alpha, own = 0.4, like(make_model(), 0.2, seed=1)
    method, model = begin("dynamic-regulariser", kept=own, strategy={"dynamic": alpha})
    before = model_arrays(model)
    assert run(method, model, mu=alpha) == {}
    twin, data = make_model(), method.begun.data
    order = generator(5, "shuffle", 0).permutation(20)
    for rows in (order[:10], order[10:]):
        batch = data.batch(rows, torch.device("cpu"))
        twin.zero_grad()
        loss = F.binary_cross_entropy_with_logits(twin(batch.images)[:, 0], batch.labels.float())
        for name, each in twin.named_parameters():
            start, pull = torch.from_numpy(before[name]), torch.from_numpy(own[name])
            loss = loss - (pull * each).sum() + alpha / 2 * (each - start).square().sum()
        loss.backward()
        with torch.no_grad():
            for each in twin.parameters():
                each -= 0.1 * each.grad
    after, kept = model_arrays(model), method.kept()
    for name, expected in model_arrays(twin).items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(kept[name], own[name] - alpha * (after[name] - before[name]), atol=1e-6)


def test_feddyn_with_a_small_alpha_trains_plainly(begin, run, make_model):
    method, model = begin("dynamic-regulariser", strategy={"dynamic": 1e-9})
    run(method, model, mu=1e-9)
    for name, expected in plain(method, make_model).items():
        np.testing.assert_allclose(model_arrays(model)[name], expected, atol=1e-7)


def test_the_first_loss_is_that_of_the_global_model_and_training_is_plain(begin, run, make_model):
    method, model = begin("first-loss")
    batch = method.begun.data.batch(np.arange(20), torch.device("cpu"))
    expected = F.binary_cross_entropy_with_logits(make_model()(batch.images)[:, 0], batch.labels.float()).item()
    told = run(method, model)
    assert told["loss"] == pytest.approx(expected, rel=1e-6)
    assert same_arrays(model_arrays(model), plain(method, make_model))
