"""EATA and SAR: what they choose, what holds them, and why constants that were found at K = 1000 grow with K."""

import math

import pytest
import torch
from torch.nn import functional as F

from client.adaptation.answers import entropy, log_probabilities
from client.adaptation.eata import Eata, EataSettings, redundancy
from client.adaptation.sar import Sar, SarSettings, early, floor
from client.adaptation.sharpness import worst_nearby
from client.adaptation.source import Source
from tests.tiny_models import Tiny, images


def sure(outputs, scale=30.0, seed=1):
    """A model that is sure of most images, as a healthy one is."""
    model = Tiny(outputs)
    with torch.no_grad():
        model.head.weight.mul_(scale)
        model.head.bias.zero_()
    return model


def fisher(model, value=1.0):
    return Source(fisher={name: torch.full_like(p, value) for name, p in model.named_parameters() if "norm" in name})


def balanced(model, count=32):
    """Batches in which both answers are as frequent."""
    pool = images(4000, seed=9)
    with torch.no_grad():
        positive = model(pool)[:, 0] > 0
    yes, no = pool[positive], pool[~positive]
    half = count // 2
    return [torch.cat([yes[i * half : (i + 1) * half], no[i * half : (i + 1) * half]]) for i in range(12)]


def run_eata(**settings):
    model = sure(1)
    method = Eata(model, fisher(model, 0.0), EataSettings(**settings))
    for batch in balanced(model):
        method.adapt(batch)
    return method.counts


def test_with_two_classes_the_published_margin_of_eata_is_no_adaptation():
    published, scaled = run_eata(published=True), run_eata()
    assert published.updates <= 1, "the first batch, before there is a mean to compare with"
    assert published.skipped >= 11
    assert scaled.updates == 12


def test_the_margin_is_the_cosine_of_a_certain_and_an_undecided_answer_and_the_published_one():
    for classes in (2, 8, 1000):
        certain, undecided = F.one_hot(torch.tensor(0), classes).float(), torch.full((classes,), 1 / classes)
        assert redundancy(classes, published=False) == pytest.approx(
            0.05 + float(F.cosine_similarity(certain, undecided, dim=0))
        )
        assert redundancy(classes, published=True) == 0.05
    assert redundancy(10, published=False) == pytest.approx(0.37, abs=0.005)


def test_eata_learns_from_nothing_unsure_and_takes_no_step_then():
    model = sure(1, scale=0.01)
    method = Eata(model, fisher(model))
    method.adapt(images())
    assert (method.counts.updates, method.counts.skipped) == (0, 1)


def test_the_loss_of_eata_by_hand():
    """One step of plain gradient descent: weights e^(E0 − H) and the pull home, away from home in one parameter."""
    model = sure(1, scale=2.0)
    settings = EataSettings(momentum=0, learning_rate=0.1, fisher_weight=3, entropy_share=0.9)
    method = Eata(model, fisher(model, 0.5), settings)
    with torch.no_grad():
        method.model.norm.bias[0] += 0.2
    logits = method.model(images())
    h = entropy(log_probabilities(logits))
    most = 0.9 * math.log(2)
    chosen = h < most
    assert 0 < chosen.sum() < len(h)
    loss = ((most - h[chosen]).exp().detach() * h[chosen]).sum() / chosen.sum() + 3 * 0.5 * 0.2**2
    method.model.norm.bias.requires_grad_(True)
    (slope,) = torch.autograd.grad(loss, method.model.norm.bias)
    slope[0] += 3 * 0.5 * 2 * 0.2
    wanted = method.model.norm.bias.detach() - 0.1 * slope
    method.adapt(images())
    torch.testing.assert_close(method.model.norm.bias.detach(), wanted)


def run_sar(**settings):
    model = sure(1, scale=4.0)
    pool = images(2000, seed=5)
    with torch.no_grad():
        unsure = entropy(log_probabilities(model(pool)))
    healthy = pool[(unsure < 0.25) & (unsure > 0.04)]
    method = Sar(model, Source(), SarSettings(learning_rate=1e-6, **settings))
    for batch in healthy[:256].split(16):
        method.adapt(batch)
    return method.counts


def test_with_two_classes_the_published_floor_of_sar_resets_a_healthy_model_for_ever():
    published, scaled = run_sar(published=True), run_sar()
    assert published.updates == scaled.updates == 16
    assert published.resets == 16
    assert scaled.resets == 0


def test_the_floor_is_the_published_share_of_the_largest_entropy():
    assert floor(1000, published=False) == pytest.approx(0.2)
    assert floor(1, published=False) == floor(2, published=False) == pytest.approx(0.029 * math.log(2), abs=1e-4)
    assert floor(2, published=True) == 0.2
    p = 0.949  # the answer whose entropy is .2
    assert -(p * math.log(p) + (1 - p) * math.log(1 - p)) == pytest.approx(0.2, abs=0.002)


def test_a_collapsed_model_is_reset_to_the_bit():
    model = sure(1, scale=4000.0)
    method = Sar(model, Source(), SarSettings(learning_rate=0.1))
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    method.adapt(images(64))
    assert method.counts.resets == 1
    assert all(torch.equal(value, before[name]) for name, value in method.model.state_dict().items())


def test_the_sharp_step_by_hand():
    """f(x) = x⁴ at x = 1: gradient 4, so the worst place within ρ is 1 + ρ, whose gradient is 4 (1 + ρ)³."""
    x = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    x.pow(4).sum().backward()
    with worst_nearby([x], 0.05):
        assert float(x.detach()) == pytest.approx(1.05)
        x.grad = None
        x.pow(4).sum().backward()
    assert float(x.detach()) == 1.0
    assert float(x.grad) == pytest.approx(4 * 1.05**3)
    pair = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    pair[0].grad, pair[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    with worst_nearby(pair, 1.0):
        torch.testing.assert_close(torch.cat([p.detach() for p in pair]), torch.tensor([0.6, 0.0, 0.8]))


def test_sar_steps_along_the_gradient_found_nearby():
    model = sure(2, scale=3.0)
    batch = images(40)
    settings = SarSettings(momentum=0, learning_rate=0.01, entropy_share=1.0)
    method = Sar(model, Source(), settings)
    weight, bias = method.model.norm.weight, method.model.norm.bias
    first = torch.autograd.grad(entropy(log_probabilities(method.model(batch))).mean(), [weight, bias])
    scale = 0.05 / torch.cat(first).norm()
    home = [weight.detach().clone(), bias.detach().clone()]
    with torch.no_grad():
        weight += first[0] * scale
        bias += first[1] * scale
    second = torch.autograd.grad(entropy(log_probabilities(method.model(batch))).mean(), [weight, bias])
    with torch.no_grad():
        weight.copy_(home[0])
        bias.copy_(home[1])
    method.adapt(batch)
    torch.testing.assert_close(weight.detach(), home[0] - 0.01 * second[0])
    torch.testing.assert_close(bias.detach(), home[1] - 0.01 * second[1])


def test_the_last_quarter_of_the_layers_is_left_alone():
    names = tuple(f"block{i}.norm.{part}" for i in range(6) for part in ("weight", "bias"))
    assert early(names) == names[:8]
    assert early(names[:2]) == names[:2]
