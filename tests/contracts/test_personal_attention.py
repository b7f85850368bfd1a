"""What personal parameters promise in every layer of ATTENTION, site by site. A new layer adds nothing."""

import copy

import pytest
import torch
from opacus import GradSampleModule
from torch.func import functional_call, grad, vmap

from common.attention import ATTENTION
from common.attention.checks import GATES, check_tensor, check_values, value_bounds
from common.attention.personal import GateScale, HeadTemperature, personal_parameters, place_personal
from common.attention.recorder import Recorder
from tests.contracts.test_attention_layers import (
    CASES,
    CHANNELS,
    IMAGES,
    OTHER,
    Model,
    grid,
    loop,
    make_inputs,
    mask_of,
    unsettled,
)

__all__ = ["grid"]  # a fixture

WITHOUT = {"linear"}
"""A map that is a share of a sum is the same at any temperature."""
SPARSE = {"sparsemax", "entmax"}
"""Maps that are not a softmax: raised to a power they are no longer the map of scaled scores."""
WHOLE = {"window", "shifted-window", "neighbourhood", "dilated-neighbourhood", "deformable-neighbourhood", "axial"}
"""Layers that give a row without anything real behind it a weight all the same."""


def label(case):
    return f"{case[0]}-{case[1]}d"


@pytest.fixture(params=[case for case in CASES if case[0] not in WITHOUT], ids=label)
def case(request):
    return request.param


@pytest.fixture
def plain(case, grid):
    torch.manual_seed(3)
    return Model(unsettled(ATTENTION.load(case[0]).build(CHANNELS, grid, OTHER)).double().eval(), grid)


@pytest.fixture
def inputs(plain, grid):
    return tuple(array.double() for array in make_inputs(plain.layer, grid))


@pytest.fixture
def personal(case, plain):
    model = copy.deepcopy(plain)
    assert all(place_personal(model, site) for site in model.attention_sites)
    return model.double().eval()


def seen(model, inputs):
    with torch.no_grad(), Recorder(model) as recorder:
        answer = model.layer(*inputs)
        return answer, recorder.take()


def powers(count):
    return torch.linspace(0.3, 0.6, count, dtype=torch.float64)


def moved(model):
    """Put every personal parameter elsewhere, each entry at its own place."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, HeadTemperature):
                module.log.copy_(powers(len(module.log)))
            elif isinstance(module, GateScale):
                module.scale.fill_(1.5), module.bias.fill_(-0.3)
    return model


def test_at_first_answers_maps_and_other_arrays_are_the_same(plain, personal, inputs):
    answer, maps = seen(plain, inputs)
    again, others = seen(personal, inputs)
    torch.testing.assert_close(again, answer, atol=1e-12, rtol=1e-12)
    for name, map_ in maps.items():
        torch.testing.assert_close(others[name], map_, atol=1e-12, rtol=1e-12)
    names = personal_parameters(personal)
    assert names
    assert [key for key in personal.state_dict() if key not in names] == list(plain.state_dict())


@pytest.mark.parametrize("case", [case for case in CASES if case[0] not in WITHOUT | SPARSE], ids=label)
def test_each_map_is_that_of_scaled_scores(case, plain, inputs, grid):
    """One site at a time, for a site may change what a later one sees.

    Softmax: A^(e^t) renormalised, t each head's own. A gate: sigmoid(a logit(g) + b); one that is 1 − sigmoid of a
    prediction scales and shifts that, so that b enters with the other sign.
    """
    before = seen(plain, inputs)[1]
    for site in plain.attention_sites:
        model = copy.deepcopy(plain)
        assert place_personal(model, site)
        after, old = seen(moved(model.double()), inputs)[1][site.name], before[site.name]
        if site.kind in GATES:
            shift = 0.3 if "reverse" in case[0] else -0.3
            wanted = (1.5 * old.logit() + shift).sigmoid()
        else:
            axis = 1 if site.kind == "branch" else -1
            heads = {"window": 2, "axial": 2}.get(site.kind, 1)
            count = model.state_dict()[personal_parameters(model)[0]].numel()
            assert count == (old.shape[heads] if site.heads else 1)
            shape = [1] * old.ndim
            shape[heads] = count
            powered = old ** powers(count).exp().reshape(shape)
            wanted = powered / powered.sum(axis, keepdim=True)
        torch.testing.assert_close(after, wanted, atol=1e-12, rtol=1e-10)
        assert (after - old).abs().max() > 1e-4
        check_values(site, value_bounds(site, check_tensor(site, after)))


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in SPARSE], ids=label)
def test_sparse_maps_are_those_of_scaled_scores(plain, personal, inputs):
    """The layer's own function, called on e^t times the scores that it was given before."""
    [site] = plain.attention_sites
    given = []
    weigh = plain.get_submodule(site.module)
    weigh.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0].clone()))
    seen(plain, inputs)
    after = seen(moved(personal), inputs)[1][site.name]
    factor = powers(site.heads).exp().reshape(1, -1, 1, 1)
    torch.testing.assert_close(after, weigh(factor * given[0]), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in WITHOUT], ids=label)
def test_a_share_of_a_sum_has_no_temperature_and_stays_fused(plain):
    before = list(plain.state_dict())
    assert not any(place_personal(plain, site) for site in plain.attention_sites)
    assert list(plain.state_dict()) == before
    assert not plain.layer.explicit


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_every_personal_parameter_learns_something_finite(personal, inputs, grid, masked):
    """Hidden scores are −inf in many layers, and must not spoil the gradient of what multiplies them."""
    personal = moved(personal).train()
    mask = mask_of(personal.layer, inputs, grid) if masked else None
    answer = personal.layer(*inputs, mask=mask)
    assert answer.isfinite().all()
    answer.square().sum().backward()
    parameters = dict(personal.named_parameters())
    for name in personal_parameters(personal):
        assert parameters[name].grad.isfinite().all(), name
        # a mask may leave one group, whose weight is 1 at any temperature
        assert masked or parameters[name].grad.abs().min() > 1e-9, name


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in WHOLE], ids=label)
def test_rows_that_see_nothing_real_stay_whole(plain, personal, inputs, grid):
    """They are kept whole by a finite least score, which a temperature above one must not push to −inf."""
    nothing = torch.zeros_like(mask_of(plain.layer, inputs, grid))
    assert plain.layer(*inputs, mask=nothing).isfinite().all()
    assert moved(personal).layer(*inputs, mask=nothing).isfinite().all()


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_per_sample_gradients_equal_a_loop(personal, inputs):
    layer = moved(personal).layer

    def loss(parameters, *sample):
        return functional_call(layer, parameters, tuple(array[None] for array in sample)).square().sum()

    rows = vmap(grad(loss), in_dims=(None, *[0] * len(inputs)), randomness="different")
    together = rows(dict(layer.named_parameters()), *inputs)
    for key, expected in loop(layer, inputs).items():
        torch.testing.assert_close(together[key], expected, atol=1e-9, rtol=1e-8)


@pytest.mark.filterwarnings(
    "ignore:There is a performance drop", "ignore:Full backward hook", "ignore:Using a non-full"
)
def test_per_sample_gradients_of_opacus_equal_a_loop(personal, inputs):
    """Opacus reads the batch off the first axis of what every leaf with parameters is given."""
    layer = moved(personal).layer.train()
    expected = loop(layer, inputs)
    layer.zero_grad()
    engine = GradSampleModule(layer, batch_first=True, loss_reduction="sum", strict=True)
    engine(*inputs).square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert len(parameter.grad_sample) == IMAGES
        torch.testing.assert_close(parameter.grad_sample, expected[key], atol=1e-9, rtol=1e-8)


def test_eval_twice_is_equal_and_so_is_a_reloaded_model(plain, personal, inputs):
    moved(personal)
    assert torch.equal(personal.layer(*inputs), personal.layer(*inputs))
    other = copy.deepcopy(plain)
    for site in other.attention_sites:
        place_personal(other, site)
    other.double().load_state_dict(personal.state_dict())
    assert list(other.state_dict()) == list(personal.state_dict())
    assert torch.equal(other.eval().layer(*inputs), personal.layer(*inputs))
