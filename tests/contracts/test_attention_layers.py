"""What every layer of ATTENTION promises. A new layer adds one case: how it is built and fed, where maps come out."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from common.attention import ATTENTION

FEATURES = (8, 12, 12)


@dataclass(frozen=True)
class Case:
    inputs: tuple[tuple[int, ...], ...]
    maps: dict[str, tuple[int, ...]]
    settings: dict[str, int] = field(default_factory=dict)
    rows: bool = False  # rows of the map sum to one; else every value is a gate in (0, 1)


CASES = {
    "se": Case((FEATURES,), {"gate": (8,)}, {"channels": 8}),
    "cbam": Case((FEATURES,), {"channel": (8,), "spatial": (1, 12, 12)}, {"channels": 8}),
    "attention-gate": Case((FEATURES, (16, 6, 6)), {"gate": (1, 6, 6)}, {"channels": 8, "gating": 16}),
    "self-attention": Case(((7, 16),), {"maps": (4, 7, 7)}, {"dim": 16, "heads": 4}, rows=True),
}


@pytest.fixture(params=sorted(ATTENTION))
def name(request):
    return request.param


@pytest.fixture
def case(name):
    return CASES[name]


@pytest.fixture
def layer(name, case):
    torch.manual_seed(3)
    return ATTENTION.load(name)(**case.settings)


@pytest.fixture
def inputs(case):
    source = torch.Generator().manual_seed(4)
    return tuple(torch.randn(5, *shape, generator=source) for shape in case.inputs)


def listen(layer, case):
    """Collect what each map module gives, as the recorder does."""
    seen: dict[str, list] = {path: [] for path in case.maps}
    for path in case.maps:
        layer.get_submodule(path).register_forward_hook(lambda _, __, output, path=path: seen[path].append(output))
    return seen


def explicit(layer, value):
    for module in layer.modules():
        if hasattr(module, "explicit"):
            module.explicit = value


def test_every_layer_has_a_case():
    assert set(CASES) == set(ATTENTION)


def test_fused_and_explicit_paths_agree(layer, inputs):
    fused = layer(*inputs)
    explicit(layer, True)
    torch.testing.assert_close(layer(*inputs), fused, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(layer.attend(*inputs)[0], fused, atol=1e-6, rtol=1e-5)


def test_output_has_the_shape_of_the_first_input(layer, inputs):
    assert layer(*inputs).shape == inputs[0].shape


def test_eval_twice_is_equal(layer, inputs):
    layer.eval()
    assert torch.equal(layer(*inputs), layer(*inputs))


def test_each_map_comes_out_once_with_its_shape(layer, case, inputs):
    seen = listen(layer, case)
    explicit(layer, True)
    layer(*inputs)
    assert {path: [tuple(m.shape) for m in maps] for path, maps in seen.items()} == {
        path: [(5, *shape)] for path, shape in case.maps.items()
    }


def test_attend_returns_the_maps_that_the_modules_give(layer, case, inputs):
    seen = listen(layer, case)
    returned = layer.attend(*inputs)[1:]
    for given, path in zip(returned, case.maps, strict=True):
        assert torch.equal(given, seen[path][0])


def test_maps_are_gates_or_sum_to_one(layer, case, inputs):
    for maps in layer.attend(*inputs)[1:]:
        assert maps.min() > 0
        assert maps.max() < 1
        if case.rows:
            torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]), atol=1e-6, rtol=0)


def test_maps_depend_on_the_image(layer, inputs):
    for maps in layer.attend(*inputs)[1:]:
        assert (maps[0] - maps[1]).abs().max() > 1e-4


@pytest.mark.parametrize("path", [False, True], ids=["default", "explicit"])
def test_gradients_are_finite_and_no_parameter_is_dead(layer, inputs, path):
    explicit(layer, path)
    layer(*inputs).square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # the fused kernel under vmap: slower, not wrong
@pytest.mark.parametrize("path", [False, True], ids=["default", "explicit"])
def test_per_sample_gradients_equal_a_loop(layer, inputs, path):
    explicit(layer, path)
    layer = layer.double()
    inputs = tuple(array.double() for array in inputs)
    parameters = dict(layer.named_parameters())

    def loss(parameters, *sample):
        return functional_call(layer, parameters, tuple(array[None] for array in sample)).square().sum()

    together = vmap(grad(loss), in_dims=(None, *[0] * len(inputs)))(parameters, *inputs)
    for index in range(5):
        layer.zero_grad()
        layer(*(array[index : index + 1] for array in inputs)).square().sum().backward()
        for key, parameter in layer.named_parameters():
            torch.testing.assert_close(together[key][index], parameter.grad, atol=1e-9, rtol=1e-9)


def test_one_image_does_not_see_the_others(layer, inputs):
    changed = tuple(array.clone() for array in inputs)
    for array in changed:
        array[1:] = array[1:].flip(0) * 3 + 1
    torch.testing.assert_close(layer(*changed)[0], layer(*inputs)[0], atol=1e-6, rtol=1e-6)
    alone = layer(*(array[:1] for array in inputs))
    torch.testing.assert_close(alone[0], layer(*inputs)[0], atol=1e-6, rtol=1e-6)


def test_every_parameter_lies_in_a_leaf_and_no_buffer_beside_it(layer):
    for module in layer.modules():
        if list(module.parameters(recurse=False)):
            assert not list(module.children())
            assert not list(module.buffers(recurse=False))
        assert not isinstance(module, nn.modules.batchnorm._NormBase)


def test_maps_come_from_the_weights(name, case, layer, inputs):
    torch.manual_seed(30)
    other = ATTENTION.load(name)(**case.settings)
    for one, two in zip(layer.attend(*inputs)[1:], other.attend(*inputs)[1:], strict=True):
        assert (one - two).abs().max() > 1e-4
