"""Ways to train what is a site's own, against local training, the shared model, and derivations by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from client.extras import Extras
from client.own import COPY, MIXED, WEIGHT, below, own_arrays, under
from client.personal import MANNERS
from client.personal.alternating import only
from client.pull import Pull
from common.arrays import load_arrays, model_arrays
from tests.federations import same_arrays

SHARED = ("together", "copied", "mixture")
"""Manners whose shared model knows nothing of what is the site's own."""
SGD = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}


def far(left, right):
    return float(np.sqrt(sum(np.square(left[name] - right[name]).sum() for name in right)))


def moved(arrays, by=0.1):
    return {name: array + np.float32(by) for name, array in arrays.items()}


@pytest.mark.parametrize("manner", sorted(MANNERS))
def test_twice_the_same_is_the_same_to_the_bit(played, manner):
    (_, first), (_, second) = (played(manner, ("head",)) for _ in range(2))
    assert same_arrays(first.arrays, second.arrays)
    assert same_arrays(first.kept, second.kept)
    assert first.trained == second.trained


@pytest.mark.parametrize("manner", sorted(MANNERS))
def test_every_manner_keeps_what_is_declared_and_leaves_the_request_as_it_was(played, manner):
    round_, outcome = played(manner, ("head",))
    assert {name for name in outcome.kept if "/" not in name} == {"head.weight", "head.bias"}
    for name in round_.names:
        np.testing.assert_array_equal(outcome.kept[name], outcome.arrays[name])
    assert all(parameter.requires_grad for parameter in round_.model.parameters())
    assert same_arrays(round_.arrays, model_arrays(type(round_.model)()))
    assert set(own_arrays(outcome.arrays, outcome.kept)) == set(outcome.arrays)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("manner", SHARED)
def test_the_shared_model_is_that_of_plain_training(played, local, manner, optimizer):
    """To the bit: neither the copy nor the mixture leaves a trace in what the server gets."""
    _, outcome = played(manner, optimizer=optimizer, pull=3.0)
    assert same_arrays(outcome.arrays, local(optimizer=optimizer))


def test_own_parts_are_put_back_before_training_and_only_they(played, local):
    _, first = played("together", ("head",))
    server = moved(first.arrays)
    round_, second = played("together", ("head",), arrays=server, kept=first.kept, seed=6)
    start = {**server, "head.weight": first.arrays["head.weight"], "head.bias": first.arrays["head.bias"]}
    assert same_arrays(round_.start(), start)
    assert same_arrays(second.arrays, local((6,), arrays=start))


# ---- Ditto


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_without_a_pull_dittos_own_model_is_local_training(played, local, optimizer):
    """Two rounds, the server's arrays moved in between: the site's own model does not see it."""
    _, first = played("copied", pull=0.0, optimizer=optimizer)
    _, second = played("copied", pull=0.0, optimizer=optimizer, arrays=moved(first.arrays), kept=first.kept, seed=6)
    assert same_arrays(below(second.kept, COPY), local((5, 6), optimizer=optimizer))


def test_the_more_dittos_pull_the_nearer_its_model_to_the_shared_one(played, make_model):
    """‖v − w‖ ≤ max ‖g‖ / λ once v has settled: ten times the pull, a tenth of the distance."""
    start = model_arrays(make_model())
    own = under(COPY, moved(start))
    distances = [
        far(
            below(played("copied", kept=own, pull=pull, local_epochs=8, learning_rate=0.01, **SGD)[1].kept, COPY),
            start,
        )
        for pull in (0.0, 1.0, 10.0, 100.0)
    ]
    assert distances[0] > distances[1] > distances[2] > distances[3]
    assert distances[3] < 0.02 * distances[0]
    assert distances[3] == pytest.approx(distances[2] / 10, rel=0.5)


def test_dittos_step_by_hand(played, make_model, make_data, task):
    """One step of SGD on all images: v − η (∇F(v) + λ (v − w)), the gradient from autograd alone."""
    start = model_arrays(make_model())
    own = moved(start)
    step = {"batch_size": 4096, "augment": False, "learning_rate": 0.05, **SGD}
    found = below(played("copied", kept=under(COPY, own), pull=0.7, **step)[1].kept, COPY)
    model, data = make_model(), make_data()
    load_arrays(model, own)
    batch = data.batch(np.arange(len(data)), torch.device("cpu"))
    task.loss(model(batch.images), batch).backward()
    for name, parameter in model.named_parameters():
        expected = own[name] - 0.05 * (parameter.grad.numpy() + 0.7 * (own[name] - start[name]))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_proximal_term_is_the_shared_models_alone(played):
    _, plain = played("copied")
    _, held = played("copied", extras=Extras(mu=10.0))
    assert not same_arrays(plain.arrays, held.arrays)
    assert same_arrays(below(plain.kept, COPY), below(held.kept, COPY))


# ---- MR-MTL


def test_without_a_pull_mr_mtl_is_local_training(played, local):
    _, first = played("pulled", ("*",), pull=0.0)
    _, second = played("pulled", ("*",), pull=0.0, arrays=moved(first.arrays), kept=first.kept, seed=6)
    assert same_arrays(second.arrays, local((5, 6)))
    assert same_arrays(second.kept, second.arrays)


def test_mr_mtl_starts_at_its_own_and_is_pulled_to_the_mean(played, make_model, make_data, task):
    start = model_arrays(make_model())
    own = moved(start)
    step = {"batch_size": 4096, "augment": False, "learning_rate": 0.05, **SGD}
    _, outcome = played("pulled", ("*",), kept=own, pull=0.7, **step)
    model, data = make_model(), make_data()
    load_arrays(model, own)
    batch = data.batch(np.arange(len(data)), torch.device("cpu"))
    task.loss(model(batch.images), batch).backward()
    for name, parameter in model.named_parameters():
        expected = own[name] - 0.05 * (parameter.grad.numpy() + 0.7 * (own[name] - start[name]))
        np.testing.assert_allclose(outcome.arrays[name], expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_a_pull_by_hand_and_none_at_weight_zero(make_model):
    """λ/2 · Σ (2 − 0.5)² over the four numbers of the two arrays that are named."""
    model = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 1))
    nn.init.constant_(model[0].weight, 2.0)
    nn.init.constant_(model[1].bias, 2.0)
    centre = {"0.weight": np.full((1, 3), 0.5, np.float32), "1.bias": np.full(1, 0.5, np.float32)}
    pull = Pull(0.4, centre).bound(model)
    assert pull is not None
    assert pull().item() == pytest.approx(0.4 / 2 * 4 * 1.5**2)
    pull().backward()
    np.testing.assert_allclose(model[0].weight.grad, np.full((1, 3), 0.4 * 1.5), rtol=1e-6)
    assert model[0].bias.grad is None
    assert Pull(0.0, centre).bound(model) is None
    assert Pull(1.0, {"running_mean": np.zeros(2)}).bound(model) is None


# ---- FedRep


def test_the_body_rests_while_the_head_trains_and_the_reverse(played, monkeypatch):
    """Seen through every step: what moves in the first epochs is the head alone, then the body alone."""
    from client.personal import base

    seen, plain = [], base.train_locally

    def watching(model, *rest):
        before = model_arrays(model)
        result = plain(model, *rest)
        after = model_arrays(model)
        seen.append(({name for name in after if not np.array_equal(before[name], after[name])}, rest[2].local_epochs))
        return result

    monkeypatch.setattr(base, "train_locally", watching)
    round_, _ = played("alternating", ("head",), head_epochs=3, local_epochs=2)
    head = {"head.weight", "head.bias"}
    assert seen == [(head, 3), (set(round_.arrays) - head, 2)]


def test_alternation_is_two_trainings_by_hand(played, make_model, make_data, task, settings):
    from client.training import train
    from common.seeds import derive

    _, outcome = played("alternating", ("head",), head_epochs=2, **SGD)
    model, data = make_model(), make_data()
    for part, seed, epochs in (("head", derive(5, "own"), 2), ("", 5, 1)):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("head") == bool(part))
        train(model, task, data, settings(local_epochs=epochs, **SGD), seed)
    assert same_arrays(outcome.arrays, model_arrays(model))


def test_statistics_of_what_rests_do_not_move():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1), nn.BatchNorm2d(1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own = {name for name in before if name.startswith(("2", "3"))}
    with only(model, own):
        assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} < own
        model(torch.randn(4, 1, 3, 3))
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"3.running_mean", "3.running_var", "3.num_batches_tracked"}


def test_flags_are_put_back_after_an_error():
    model = nn.Linear(2, 1)
    with pytest.raises(RuntimeError, match="stop"), only(model, {"bias"}):
        raise RuntimeError("stop")
    assert model.weight.requires_grad


# ---- APFL


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_with_all_weight_on_its_own_a_site_of_apfl_trains_locally(played, local, optimizer):
    fixed = {"mixing": 1.0, "learn_mixing": False, "optimizer": optimizer}
    _, first = played("mixture", **fixed)
    server = moved(first.arrays)
    _, second = played("mixture", arrays=server, kept=first.kept, seed=6, **fixed)
    found = own_arrays(moved(second.arrays), second.kept)
    assert same_arrays(found, local((5, 6), optimizer=optimizer))


def test_with_no_weight_on_its_own_a_site_of_apfl_answers_as_the_shared_model(played):
    _, outcome = played("mixture", mixing=0.0, learn_mixing=False)
    server = moved(outcome.arrays)
    assert same_arrays(own_arrays(server, outcome.kept), server)


def test_apfls_step_by_hand(played, make_model, make_data, task):
    """One step of SGD: v − η α ∇F(v̄) and α − η ⟨v − w, ∇F(v̄)⟩ (eq. 10), the gradient from autograd at v̄."""
    shared = model_arrays(make_model())
    own, alpha, rate = moved(shared), 0.3, 0.05
    table = {**under(MIXED, own), WEIGHT: np.array(alpha)}
    step = {"batch_size": 4096, "augment": False, "learning_rate": rate, **SGD}
    _, outcome = played("mixture", kept=table, **step)
    model, data = make_model(), make_data()
    load_arrays(model, own_arrays(shared, table))
    batch = data.batch(np.arange(len(data)), torch.device("cpu"))
    task.loss(model(batch.images), batch).backward()
    gradient = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    found = below(outcome.kept, MIXED)
    for name, each in gradient.items():
        np.testing.assert_allclose(found[name], own[name] - rate * alpha * each, rtol=1e-5, atol=1e-7, err_msg=name)
    slope = sum(float(((own[name] - shared[name]) * each).sum()) for name, each in gradient.items())
    assert float(outcome.kept[WEIGHT]) == pytest.approx(alpha - rate * slope, rel=1e-5)
    assert abs(slope) > 1e-3


def test_the_weight_goes_on_from_round_to_round_and_stays_a_weight(played):
    _, first = played("mixture", learning_rate=0.5)
    weights = [float(first.kept[WEIGHT])]
    for seed in range(6, 12):
        _, first = played("mixture", arrays=first.arrays, kept=first.kept, seed=seed, learning_rate=0.5)
        weights.append(float(first.kept[WEIGHT]))
    assert weights[0] != 0.5
    assert len(set(weights)) > 1
    assert all(0 <= weight <= 1 for weight in weights)


class Batched(nn.Module):
    """A model whose norms keep statistics."""

    def __init__(self, dropout=0.0, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.attention_sites = ()
        self.inner, self.norm, self.head = nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)

    def forward(self, images):
        return self.head(self.norm(self.inner(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))))


def test_the_mixture_has_statistics_of_its_own(played):
    """A mean of two models' means is not the mean of the mixture's activations: the mixture's are kept as they are."""
    with torch.random.fork_rng():
        model = Batched()
        start = model_arrays(model)
        _, outcome = played("mixture", model=model, learning_rate=0.1)
    buffers = below(outcome.kept, COPY)
    assert set(buffers) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert buffers["norm.num_batches_tracked"] == outcome.arrays["norm.num_batches_tracked"] == 5
    assert not np.array_equal(buffers["norm.running_mean"], start["norm.running_mean"])
    found = own_arrays(outcome.arrays, outcome.kept)
    assert set(found) == set(start)
    np.testing.assert_array_equal(found["norm.running_mean"], buffers["norm.running_mean"])


def test_statistics_alone_may_stay(played):
    """SiloBN: the statistics of the round before are put back, scales and shifts are the server's."""
    with torch.random.fork_rng():
        model = Batched()
        names = ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked")
        _, first = played("together", ("*running*", "*tracked"), model=model)
    assert tuple(first.kept) == names
    round_, second = played("together", names, model=model, arrays=moved_floats(first.arrays), kept=first.kept, seed=6)
    assert round_.start()["norm.running_mean"].tobytes() == first.kept["norm.running_mean"].tobytes()
    assert round_.start()["norm.weight"].tobytes() == moved_floats(first.arrays)["norm.weight"].tobytes()
    assert second.kept["norm.num_batches_tracked"] == 10


def moved_floats(arrays):
    return {name: array + np.float32(0.1) if array.dtype == np.float32 else array for name, array in arrays.items()}
