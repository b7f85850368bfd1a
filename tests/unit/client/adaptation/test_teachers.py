"""CoTTA and RoTTA: the teacher's mean, the way home, a threshold from the source, a memory balanced by hand; DELTA."""

import pytest
import torch
from torch import nn

from client.adaptation.batch_norm import TestBatchNorm
from client.adaptation.cotta import Cotta, CottaSettings, quantile
from client.adaptation.delta import Delta, DeltaSettings, renormalised
from client.adaptation.memory import BalancedMemory
from client.adaptation.rotta import Rotta, RottaSettings, keep_running
from client.adaptation.source import Source
from client.adaptation.teacher import disagreement, follow
from tests.tiny_models import Tiny, images


def confident():
    """Known confidences far below anything: the teacher never looks twice."""
    return Source(confidence=torch.cat([torch.ones(1), torch.zeros(99)]).double())


def test_the_teacher_is_the_running_mean_of_the_students():
    teacher, students = nn.Linear(2, 2), [nn.Linear(2, 2) for _ in range(3)]
    start = teacher.weight.detach().clone()
    for student in students:
        follow(teacher, student, 0.9)
    a, b, c = (student.weight.detach() for student in students)
    torch.testing.assert_close(teacher.weight.detach(), 0.729 * start + 0.1 * (0.81 * a + 0.9 * b + c))


def test_disagreement_is_cross_entropy():
    logits, taught = torch.randn(5, 3), torch.randn(5, 3).softmax(1)
    wanted = nn.functional.cross_entropy(logits, taught, reduction="none")
    torch.testing.assert_close(disagreement(logits, taught), wanted)


def test_cotta_predicts_by_the_teacher_who_follows():
    model = Tiny(3)
    method = Cotta(model, confident(), CottaSettings(decay=0.5, restore=0, learning_rate=0.05))
    answer = method.adapt(images())
    torch.testing.assert_close(answer, model(images()).double().softmax(1), rtol=1e-5, atol=1e-6)
    before = {name: p.clone() for name, p in method.model.named_parameters()}
    half = {name: (p + before[name]) / 2 for name, p in model.named_parameters()}
    for name, value in method.teacher.named_parameters():
        torch.testing.assert_close(value, half[name].detach())


def test_weights_go_home_with_the_chance_that_is_set():
    model = Tiny(3)
    with torch.no_grad():
        model.first.weight = nn.Parameter(torch.randn(4, 3))
    none, every = (
        Cotta(model, confident(), CottaSettings(decay=0, restore=chance, learning_rate=0.05)) for chance in (0.0, 1.0)
    )
    for method in (none, every):
        method.adapt(images())
        method.adapt(images(seed=2))
    home = dict(model.named_parameters())
    assert all(torch.equal(p, home[name]) for name, p in every.model.named_parameters())
    assert not any(torch.equal(p, home[name]) for name, p in none.model.named_parameters())
    some = Cotta(model, confident(), CottaSettings(decay=0, restore=0.5, learning_rate=0.05))
    for seed in range(6):
        some.adapt(images(seed=seed))
    back = torch.cat([(p == home[name]).flatten() for name, p in some.model.named_parameters()])
    assert 0.2 < back.float().mean() < 0.8


def test_the_threshold_is_the_quantile_of_the_source():
    counts = torch.zeros(100, dtype=torch.float64)
    counts[50:100] = 2  # evenly from one half to one
    assert quantile(counts, 0.05) == pytest.approx(0.525)
    assert quantile(counts, 1.0) == pytest.approx(1.0)
    one = torch.zeros(100, dtype=torch.float64)
    one[90] = 7
    assert quantile(one, 0.05) == pytest.approx(0.9005)
    assert Cotta(Tiny(2), Source(confidence=counts)).threshold == pytest.approx(0.525)
    assert Cotta(Tiny(2), Source(confidence=counts), CottaSettings(published=True)).threshold == 0.92


def image(value):
    return torch.full((1, 2, 2), float(value))


def values(memory):
    return [[float(item.image[0, 0, 0]) for item in items] for items in memory.kept]


def test_the_memory_by_hand():
    """Room for four, two classes: two of each. All equally sure unless said otherwise."""
    memory = BalancedMemory(4, 2)
    for value in (1, 2, 3):  # the third of a class must beat one of two that are older and so score worse
        assert memory.add(image(value), 0, 0.1)
    assert values(memory) == [[2, 3], []], "the oldest left"
    assert not memory.add(image(4), 0, 0.9), "too unsure to take a place"
    assert values(memory) == [[2, 3], []]
    assert memory.add(image(5), 1, 0.5)
    assert memory.add(image(6), 1, 0.2)
    assert len(memory) == 4
    assert memory.add(image(7), 1, 0.2), "the unsure one of its class leaves"
    assert values(memory) == [[2, 3], [6, 7]]
    kept, ages = memory.images()
    assert kept.shape == (4, 1, 2, 2)
    assert ages.tolist() == [6 / 4, 5 / 4, 2 / 4, 1 / 4]


def test_a_class_that_arrives_late_takes_from_the_largest():
    memory = BalancedMemory(3, 2)  # room for one and a half of each
    for value in (1, 2):
        memory.add(image(value), 0, 0.1)
    assert values(memory) == [[1, 2], []]
    memory.add(image(3), 1, 0.1)
    memory.add(image(4), 1, 0.1)
    assert values(memory) == [[2], [3, 4]]


def test_a_stream_of_one_class_fills_no_more_than_its_share():
    memory = BalancedMemory(64, 4)
    for i in range(500):
        memory.add(image(i), 2, 0.1)
    assert [len(items) for items in memory.kept] == [0, 0, 16, 0]


def test_rotta_learns_every_so_many_images_whatever_the_batch():
    settings = RottaSettings(every=8, capacity=8)
    for size in (1, 3, 16):
        method = Rotta(Tiny(2), Source(), settings)
        for batch in torch.randn(48, 1, 4, 4)[:, :, :1, :3].split(size):
            method.adapt(batch)
        assert method.counts.updates == 6
        assert len(method.memory) <= 8


def test_the_robust_statistics_are_a_running_mean_through_which_gradients_run():
    layer = TestBatchNorm(nn.BatchNorm2d(2).eval(), lambda layer, mean, variance: (mean, variance))
    mean = torch.tensor([1.0, 2.0], requires_grad=True)
    found, _ = keep_running(layer, mean, torch.tensor([4.0, 5.0]), 0.05)
    torch.testing.assert_close(found.detach(), torch.tensor([0.05, 0.1]))
    torch.testing.assert_close(layer.running_var, torch.tensor([1.15, 1.2]))
    (slope,) = torch.autograd.grad(found.sum(), mean)
    torch.testing.assert_close(slope, torch.tensor([0.05, 0.05]))


def test_renormalised_statistics_are_the_running_ones_with_the_gradient_of_batch_renormalisation():
    given = nn.BatchNorm2d(2).eval()
    with torch.no_grad():
        given.running_mean.copy_(torch.tensor([0.3, -1.0]))
        given.running_var.copy_(torch.tensor([2.0, 0.5]))
    layer = TestBatchNorm(given, lambda layer, mean, var: renormalised(layer, mean, var, 0.05))
    x = torch.randn(6, 2, 3, 3, requires_grad=True)
    out = layer(x)
    shape = (1, 2, 1, 1)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    run_mean = 0.95 * given.running_mean + 0.05 * mean.detach()
    run_sd = (0.95 * given.running_var + 0.05 * var.detach() + 1e-5).sqrt()
    torch.testing.assert_close(layer.running_mean, run_mean)
    torch.testing.assert_close(out, (x - run_mean.view(shape)) / run_sd.view(shape))
    sd = (var + 1e-5).sqrt()
    r, d = (sd / run_sd).detach(), ((mean - run_mean) / run_sd).detach()
    twin = (x - mean.view(shape)) / sd.view(shape) * r.view(shape) + d.view(shape)
    weights = torch.randn(out.shape)
    ours, theirs = (torch.autograd.grad((y * weights).sum(), x, retain_graph=True)[0] for y in (out, twin))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_rare_classes_weigh_more_by_hand():
    """One step of plain gradient descent with the weights 1 / z of a stream that has seen mostly one class."""
    model, batch = Tiny(2), images(12)
    method = Delta(model, Source(), DeltaSettings(momentum=0, learning_rate=0.1))
    method.frequency = torch.tensor([0.9, 0.1])
    p = method.model(batch).softmax(1)
    weight = torch.where(p.argmax(1) == 0, 1 / 0.9, 1 / 0.1).detach()
    loss = (weight * -(p * p.log()).sum(1)).sum() / weight.sum()
    (slope,) = torch.autograd.grad(loss, method.model.norm.bias)
    wanted = method.model.norm.bias.detach() - 0.1 * slope
    method.adapt(batch)
    torch.testing.assert_close(method.model.norm.bias.detach(), wanted)
    torch.testing.assert_close(method.frequency, 0.95 * torch.tensor([0.9, 0.1]) + 0.05 * p.detach().mean(0))
