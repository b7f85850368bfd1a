"""TENT: the gradient of entropy by hand, and a slow twin that knows no optimizer and no model class."""

import math

import pytest
import torch
from torch import nn

from client.adaptation.answers import as_task, classes_of, entropy, log_probabilities, most_entropy, of_classes, rows
from client.adaptation.source import Source
from client.adaptation.tent import Tent, TentSettings
from tests.tiny_models import Tiny, images


def gradient_by_hand(logit):
    """dH/dx of p = sigmoid(x), H = −p ln p − (1 − p) ln(1 − p): −x p (1 − p)."""
    p = 1 / (1 + math.exp(-logit))
    return -logit * p * (1 - p)


def test_the_gradient_of_entropy_is_the_one_derived_by_hand():
    logits = torch.tensor([[-3.0], [-0.4], [0.0], [1.7]], requires_grad=True)
    entropy(log_probabilities(logits)).sum().backward()
    wanted = torch.tensor([[gradient_by_hand(float(x))] for x in logits.detach()])
    torch.testing.assert_close(logits.grad, wanted)
    several = torch.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
    entropy(log_probabilities(several)).sum().backward()
    p = several.detach().softmax(1)
    h = -(p * p.log()).sum()
    torch.testing.assert_close(several.grad, -p * (p.log() + h))  # dH/dx_k = −p_k (ln p_k + H)


def test_a_single_logit_is_a_choice_of_two():
    logits = torch.tensor([[0.7], [-2.0], [90.0], [-200.0]])
    log_p = log_probabilities(logits)
    torch.testing.assert_close(log_p[:2].exp()[:, 1:], logits[:2].sigmoid())
    torch.testing.assert_close(log_p, log_probabilities(torch.cat([0 * logits, logits], 1)))
    assert entropy(log_p).isfinite().all()
    assert (classes_of(1), classes_of(2), classes_of(5)) == (2, 2, 5)
    assert most_entropy(1) == pytest.approx(math.log(2))
    torch.testing.assert_close(of_classes(log_p.exp(), 1), logits.sigmoid().double())
    dense = torch.randn(2, 3, 4, 5)
    assert torch.equal(rows(dense)[7], dense[0, :, 1, 2])
    assert as_task(dense, exclusive=True).dtype == torch.float32


def twin(model, batches, rate, steps):
    """Adam written out (Kingma and Ba 2015, alg. 1), gradients by hand through LayerNorm's affine map."""
    weight, bias = model.norm.weight.detach().clone(), model.norm.bias.detach().clone()
    first, second, t, answers = [0.0, 0.0], [0.0, 0.0], 0, []
    for batch in batches:
        plain = nn.functional.layer_norm(model.first(batch.flatten(1)), (4,)).detach()
        for step in range(steps):
            logit = ((plain * weight + bias) @ model.head.weight.T + model.head.bias).detach()[:, 0]
            if not step:
                answers.append(logit.double().sigmoid()[:, None])
            p = logit.sigmoid()
            slope = (-logit * p * (1 - p) / len(logit))[:, None] * model.head.weight.detach()
            t += 1
            for i, (value, grad) in enumerate(((weight, (slope * plain).sum(0)), (bias, slope.sum(0)))):
                first[i] = 0.9 * first[i] + 0.1 * grad
                second[i] = 0.999 * second[i] + 0.001 * grad**2
                value -= rate * (first[i] / (1 - 0.9**t)) / ((second[i] / (1 - 0.999**t)).sqrt() + 1e-8)
    return answers, weight, bias


@pytest.mark.parametrize("steps", [1, 3])
def test_it_does_what_a_slow_twin_does(steps):
    model, batches = Tiny(1), [images(seed=i) for i in range(4)]
    method = Tent(model, Source(), TentSettings(steps=steps, learning_rate=0.01))
    found = [method.adapt(batch) for batch in batches]
    answers, weight, bias = twin(model, batches, 0.01, steps)
    for one, two in zip(found, answers, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.model.norm.weight.data, weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.model.norm.bias.data, bias, rtol=1e-5, atol=1e-6)
    assert method.counts.updates == 4 * steps


def test_it_makes_the_model_surer():
    method = Tent(Tiny(3), Source(), TentSettings(steps=20, learning_rate=0.02))
    before = entropy(log_probabilities(method.model(images()))).mean()
    method.adapt(images())
    assert entropy(log_probabilities(method.model(images()))).mean() < 0.9 * before


def test_a_loss_that_is_not_finite_moves_nothing_and_is_counted():
    method = Tent(Tiny(1), Source())
    before = [value.clone() for value in method.model.state_dict().values()]
    method.adapt(torch.full((2, 1, 1, 3), float("nan")))
    assert all(torch.equal(a, b) for a, b in zip(before, method.model.state_dict().values(), strict=True))
    assert (method.counts.updates, method.counts.skipped) == (0, 1)
