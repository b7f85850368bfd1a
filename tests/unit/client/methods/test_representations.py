"""Methods that read features: MOON, prototypes and FedSR, each against a twin by hand; HarmoFL's first round."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from client.methods.features import features_of, listening
from client.methods.simple_representation import divergence
from client.training import train
from common.arrays import load_arrays, model_arrays
from common.errors import ConfigError
from common.models.amplitude import AmplitudeNorm
from common.models.representation import make_probabilistic
from tests.federations import same_arrays

CPU = torch.device("cpu")


def plain(method, make_model, seed=5):
    model = make_model()
    train(model, method.begun.task, method.begun.data, method.begun.train, seed)
    return model_arrays(model)


def hidden(model, images):
    """The features of `Tiny`, by its own layers."""
    inner = model.inner(F.adaptive_avg_pool2d(images, 4).flatten(1))
    return model.drop(model.norm(inner * model.gate(inner)))


def images_of(method):
    return method.begun.data.batch(np.arange(len(method.begun.data)), CPU)


def test_features_are_what_the_head_sees(begin, make_model):
    method, model = begin("contrast")
    batch = images_of(method)
    torch.testing.assert_close(features_of(model, batch.images), hidden(model, batch.images).detach())
    with listening(model) as heard:
        model(batch.images)
        assert heard.features.requires_grad
    model(batch.images[:1])
    assert len(heard.features) == 20, "it listens only while entered"


def test_features_of_a_segmenter_are_means_over_places():
    class Dense(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Conv2d(3, 1, 1)

        def forward(self, images):
            return self.head(images)

    images = torch.rand(2, 3, 5, 4)
    torch.testing.assert_close(features_of(Dense(), images), images.mean((2, 3)))


@pytest.mark.parametrize("contrast", [0.0, 1.0])
def test_moon_without_weight_or_in_the_first_round_is_plain_training_to_the_bit(begin, run, make_model, contrast):
    kept = {} if contrast else model_arrays(make_model(seed=9))
    method, model = begin("contrast", kept=kept, strategy={"contrast": contrast})
    assert run(method, model) == {}
    assert same_arrays(model_arrays(model), plain(method, make_model))
    assert same_arrays(method.kept(), model_arrays(model))


def test_moon_by_its_equation(begin, make_model):
    """−log of a quotient of exponentials, in float64, and its gradient reaches the features alone."""
    previous = make_model(seed=9)
    settings = {"contrast": 2.0, "temperature": 0.25}
    method, model = begin("contrast", kept=model_arrays(previous), strategy=settings)
    batch, now = images_of(method), make_model(seed=4)
    with method.attached(now):
        now(batch.images)
        term = method.term(batch)
    z, near, far = (hidden(each, batch.images).double() for each in (now, model, previous))

    def powers(left, right):
        cosine = (left * right).sum(1) / left.norm(dim=1) / right.norm(dim=1)
        return torch.exp(cosine / 0.25)

    expected = 2.0 * -torch.log(powers(z, near) / (powers(z, near) + powers(z, far))).mean()
    assert term.item() == pytest.approx(expected.item(), rel=1e-5)
    term.backward()
    assert now.head.weight.grad is None
    assert now.inner.weight.grad.abs().max() > 0
    assert all(each.grad is None for each in model.parameters())


def test_moon_draws_towards_the_global_model(begin, run, make_model):
    """After training with a heavy term features lie nearer the global model's than after plain training."""

    def distance(contrast):
        method, model = begin(
            "contrast", kept=model_arrays(make_model(seed=9)), strategy={"contrast": contrast}, local_epochs=10
        )
        origin = make_model()
        run(method, model)
        batch = images_of(method)
        return (1 - F.cosine_similarity(hidden(model, batch.images), hidden(origin, batch.images))).mean().item()

    assert distance(20.0) < distance(0.0)


def test_prototypes_told_equal_a_slow_twin(begin, run, make_data):
    method, model = begin("prototypes", data=make_data(19))
    told = run(method, model)
    data = method.begun.data
    sums, counts = np.zeros((2, 8)), np.zeros(2)
    model.eval()
    for i in range(19):
        batch = data.batch(np.array([i]), CPU)
        sums[data.labels[i]] += hidden(model, batch.images)[0].detach().double().numpy()
        counts[data.labels[i]] += 1
    np.testing.assert_allclose(told["sums"], sums, rtol=1e-4, atol=1e-4)
    assert told["counts"].tolist() == counts.tolist()


def test_the_prototype_term_by_hand_and_a_class_without_one_pulls_nobody(begin, make_model):
    shared = {"prototypes": np.full((2, 8), 0.5, np.float32), "counts": np.array([3, 0], np.float32)}
    method, model = begin("prototypes", shared=shared, strategy={"prototype": 3.0})
    batch = images_of(method)
    with method.attached(model):
        model(batch.images)
        term = method.term(batch)
    apart = ((hidden(model, batch.images) - 0.5) ** 2).mean(1)
    expected = 3.0 * sum(apart[i] for i in range(20) if batch.labels[i] == 0) / 20
    assert 0 < (batch.labels == 0).sum() < 20
    torch.testing.assert_close(term, expected)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_without_weight_or_prototypes_training_is_plain(begin, run, make_model, weight):
    shared = {} if weight else {"prototypes": np.ones((2, 8), np.float32), "counts": np.ones(2, np.float32)}
    method, model = begin("prototypes", shared=shared, strategy={"prototype": weight})
    run(method, model)
    assert same_arrays(model_arrays(model), plain(method, make_model))


def test_divergence_equals_torch_distributions():
    random = torch.Generator().manual_seed(1)
    mean, other = torch.randn(2, 5, 4, generator=random, dtype=torch.float64)
    deviation, wide = torch.rand(2, 5, 4, generator=random, dtype=torch.float64) + 0.1
    twin = kl_divergence(Normal(mean, deviation), Normal(other, wide)).sum(1)
    torch.testing.assert_close(divergence(mean, deviation, other, wide), twin)
    torch.testing.assert_close(divergence(mean, deviation, mean, deviation), torch.zeros(5, dtype=torch.float64))


def probabilistic(make_model):
    def make(*arguments, **named):
        model = make_model(*arguments, **named)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            make_probabilistic(model, 2)
        return model

    return make


def test_fedsr_by_its_equations(begin, make_model):
    model = probabilistic(make_model)()
    method, _ = begin("simple-representation", model=model, strategy={"shrink": 0.3, "invariance": 0.2})
    batch = images_of(method)
    drawn = []
    model.train()
    with method.attached(model), torch.random.fork_rng():
        handle = model.head.register_forward_hook(lambda _, inputs, output: drawn.append(inputs[0]))
        model(batch.images)
        handle.remove()
        term = method.term(batch)
    z, mean = drawn[0], hidden(model, batch.images)
    assert not torch.allclose(z, mean), "the head sees what was drawn"
    law = Normal(mean, F.softplus(model.representation.spread(mean)))
    classes = Normal(model.representation.laws.centre, F.softplus(model.representation.laws.raw))
    apart = torch.stack(
        [
            kl_divergence(Normal(law.loc[i], law.scale[i]), Normal(classes.loc[y], classes.scale[y])).sum()
            for i, y in enumerate(batch.labels)
        ]
    )
    expected = (0.3 * (z**2).sum(1) + 0.2 * apart).mean()
    torch.testing.assert_close(term, expected)
    term.backward()
    assert all(each.grad is not None for each in model.representation.parameters())


def test_fedsr_follows_its_seed_and_shortens_representations(begin, run, make_model):
    def end(shrink, seed=5):
        model = probabilistic(make_model)()
        method, _ = begin(
            "simple-representation", model=model, strategy={"shrink": shrink, "invariance": 0.0}, local_epochs=8
        )
        run(method, model, seed=seed)
        return model_arrays(model), hidden(model.eval(), images_of(method).images).square().sum(1).mean().item()

    assert same_arrays(end(0.1)[0], end(0.1)[0])
    assert end(0.5)[1] < end(0.0)[1]


def test_harmofl_moves_the_amplitude_in_the_first_round_alone_and_perturbs(begin, run, make_model):
    def model_of(mean=None):
        model = make_model()
        model.before = AmplitudeNorm(1, 16, 16)
        if mean is not None:
            model.before.mean.copy_(mean)
        return model

    method, first = begin("amplitude", model=model_of(), strategy={"harmony": 0.07})
    assert method.radius == 0.07
    run(method, first)
    assert not first.before.moving
    assert first.before.mean[0, 0, 0] > 0

    mean = torch.rand(1, 16, 9) + 0.1
    method, second = begin("amplitude", model=model_of(mean), round_=2, strategy={"harmony": 0.07})
    run(method, second)
    assert torch.equal(second.before.mean, mean)
    twin, settings = model_of(mean), method.begun.train.model_copy(update={"sam": 0.07})
    train(twin, method.begun.task, method.begun.data, settings, 5)
    assert same_arrays(model_arrays(second), model_arrays(twin)), "round 2 is SAM over a fixed amplitude"


@pytest.mark.parametrize("name", ["amplitude", "simple-representation"])
def test_a_model_without_the_part_is_refused(begin, run, name):
    method, model = begin(name)
    with pytest.raises(ConfigError, match=r"Set 'model\."):
        run(method, model)


def test_the_previous_model_is_a_copy(begin, make_model):
    """The model of a process is one for all rounds; what MOON compares with must not train along."""
    previous = make_model(seed=9)
    method, model = begin("contrast", kept=model_arrays(previous))
    batch = images_of(method)
    before = [features_of(each, batch.images) for each in method._others]
    load_arrays(model, model_arrays(make_model(seed=3)))
    after = [features_of(each, batch.images) for each in method._others]
    assert all(torch.equal(left, right) for left, right in zip(before, after, strict=True))
