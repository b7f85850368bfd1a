"""Sharpness-aware minimisation: against a step by hand, and back to where it began."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.sharpness import climbed
from client.training import train
from common.arrays import model_arrays
from common.seeds import generator
from tests.federations import same_arrays


def test_the_gradient_of_a_quadratic_by_hand():
    """f = ½ Σ aᵢ wᵢ²: g = a w, the point above w + ρ g/‖g‖, and there the gradient a (w + ρ a w / ‖a w‖)."""
    a, w = torch.tensor([1.0, 4.0, 0.5]), torch.tensor([2.0, -1.0, 0.0])
    first, second = w[:2].clone().requires_grad_(), w[2:].clone().requires_grad_()

    def loss():
        return 0.5 * (a * torch.cat([first, second]).square()).sum()

    loss().backward()
    norm = (a * w).norm()
    with climbed([first, second], 0.3):
        torch.testing.assert_close(torch.cat([first, second]).detach(), w + 0.3 * a * w / norm)
        first.grad = second.grad = None
        loss().backward()
    assert torch.equal(torch.cat([first, second]), w)
    torch.testing.assert_close(torch.cat([first.grad, second.grad]), a * (w + 0.3 * a * w / norm))


def test_where_nothing_pulls_nothing_moves_and_an_error_puts_all_back():
    still, none = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    still.grad = torch.zeros(2)
    with climbed([still, none], 0.1):
        assert torch.equal(still, torch.ones(2))
    with climbed([none], 0.1):
        assert torch.equal(none, torch.ones(2))
    still.grad = torch.ones(2)

    def break_inside():
        with climbed([still], 0.1):
            assert not torch.equal(still, torch.ones(2))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        break_inside()
    assert torch.equal(still, torch.ones(2))


PLAIN = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.1, "batch_size": 10}


def test_training_with_it_equals_a_loop_by_hand(make_model, make_data, task, settings):
    data, model, twin = make_data(20), make_model(), make_model()
    trained = train(model, task, data, settings(augment=False, sam=0.2, **PLAIN), seed=5)
    order, losses = generator(5, "shuffle", 0).permutation(20), []
    for rows in (order[:10], order[10:]):
        batch = data.batch(rows, torch.device("cpu"))

        def loss(batch=batch):
            return F.binary_cross_entropy_with_logits(twin(batch.images)[:, 0], batch.labels.float())

        start = [each.detach().clone() for each in twin.parameters()]
        below = torch.autograd.grad(loss(), list(twin.parameters()))
        losses.append(loss().item())
        norm = torch.cat([each.flatten() for each in below]).norm()
        with torch.no_grad():
            for each, gradient in zip(twin.parameters(), below, strict=True):
                each += 0.2 * gradient / norm
        above = torch.autograd.grad(loss(), list(twin.parameters()))
        with torch.no_grad():
            for each, before, gradient in zip(twin.parameters(), start, above, strict=True):
                each.copy_(before - 0.1 * gradient)
    for parameter, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6)
    assert trained.loss_sum == pytest.approx(10 * sum(losses), rel=1e-5)


@pytest.mark.parametrize("changes", [{"sam": 0.05}, {"augmentation": "medical"}, {"amplitude_mix": 0.1}], ids=str)
def test_each_option_changes_training_and_follows_the_seed(make_model, make_data, task, settings, changes):
    def end(seed=3, **options):
        model = make_model()
        train(model, task, make_data(), settings(**options), seed)
        return model_arrays(model)

    assert same_arrays(end(**changes), end(**changes))
    assert not same_arrays(end(**changes), end())
    assert all(np.isfinite(array).all() for array in end(**changes).values())
