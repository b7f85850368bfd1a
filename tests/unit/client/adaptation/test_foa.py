"""FOA: the search on a function of which the least is known, prompts that are felt, moments and shift by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from client.adaptation.evolution import Evolution
from client.adaptation.foa import Foa, FoaSettings, discrepancy, prompted
from client.adaptation.measure import measure_source
from client.adaptation.source import Moments, Source
from common.config import ModelSection, TaskSection
from common.errors import AdaptationError
from common.models.build import build_model
from common.tasks.build import build_task
from tests.unit.client.adaptation.test_measure import data


def make(attention=""):
    return build_model(ModelSection(name="vit", width=4, attention=attention), 1, 3, 16, seed=0).eval()


@pytest.fixture(scope="module")
def parts():
    model = make()
    task = build_task(TaskSection(name="multiclass", positive=""), ("a", "b", "c"), ())
    return model, measure_source(model, task, data(40), Foa.needs)


def images(count=16, seed=1):
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_search_finds_the_least_of_a_skewed_bowl():
    aim, scale = np.array([1.0, -2.0, 0.5, 3.0]), np.array([1.0, 10.0, 100.0, 3.0])
    search = Evolution(4, 0.5, 12, seed=3)
    for _ in range(120):
        best = search.generation(lambda x: float((scale * (x - aim) ** 2).sum()))
    np.testing.assert_allclose(best, aim, atol=1e-3)


def test_costs_that_are_not_finite_never_win_and_move_nothing_alone():
    search = Evolution(3, 0.5, 6, seed=3)
    assert not search.generation(lambda x: float("nan")).any(), "the mean, which is still zero"
    best = search.generation(lambda x: float("nan") if x[0] < 0 else float(x[0]))
    assert best[0] >= 0


def test_prompts_stand_behind_the_class_token_and_are_felt(parts):
    model, _ = parts
    seen = {}
    handle = model.blocks.register_forward_pre_hook(lambda module, inputs: seen.update(tokens=inputs[0]))
    prompts = torch.full((3, 16), 0.7)
    with torch.no_grad():
        plain = model(images())
        before = seen["tokens"]
        with prompted(model, prompts):
            changed = model(images())
        after = seen["tokens"]
        assert torch.equal(model(images()), plain)
    handle.remove()
    assert torch.equal(after[:, 0], before[:, 0])
    assert torch.equal(after[:, 1:4], prompts.expand(16, 3, 16))
    assert torch.equal(after[:, 4:], before[:, 1:])
    assert not torch.allclose(plain, changed, atol=1e-4)


def test_the_discrepancy_by_hand():
    aim = Moments(torch.tensor([[1.0, 0.0], [9.0, 9.0]]), torch.tensor([[4.0, 1.0], [9.0, 9.0]]))
    values = torch.tensor([[0.0, 1.0], [2.0, 3.0]])  # mean (1, 2), deviation (1, 1)
    assert float(discrepancy(values, aim)) == pytest.approx(2**2 + 1**2)


def test_a_search_lowers_its_own_cost_and_the_shift_brings_features_home(parts):
    model, source = parts
    method = Foa(model, source, FoaSettings(population=8, memory=0.0))
    batch = images(32)
    nothing = method._cost(batch, torch.zeros(3, 16))
    method.adapt(batch)
    method.mean = None
    assert method._cost(batch, method.prompts) < nothing
    method.reset()
    method.adapt(batch)
    with torch.no_grad(), prompted(method.model, method.prompts):
        moved = method._shifted(method.model.features(batch))
    torch.testing.assert_close(moved.mean(0), source.features.mean, rtol=1e-4, atol=1e-5)


def test_a_model_without_a_place_for_prompts_is_refused(parts):
    with pytest.raises(AdaptationError, match="no class token"):
        Foa(build_model(ModelSection(name="convnet", width=4), 1, 3, 16, seed=0), Source())
    tied = make()
    tied.blocks.register_forward_pre_hook(lambda module, inputs: nn.functional.linear(inputs[0].mT, torch.ones(1, 17)))
    with pytest.raises(AdaptationError, match="tied to the number"):
        Foa(tied, Source())
