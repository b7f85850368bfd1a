"""What every layer of ATTENTION promises, in each number of dimensions that it offers. A new layer adds nothing."""

import math

import pytest
import torch
from opacus import GradSampleModule
from torch import nn
from torch.func import functional_call, grad, vmap

from common.attention import ATTENTION
from common.attention.base import AttentionLayer, placed
from common.attention.checks import GATES, check_sites, check_tensor, check_values, value_bounds
from common.attention.recorder import Recorder

IMAGES, CHANNELS, OTHER = 4, 16, 24
GRIDS = {1: (12,), 2: (8, 6), 3: (4, 6, 4)}
FRAMES = {1: (3, 5), 2: (3, 4, 3), 3: (2, 2, 4, 2)}
ODD = {1: (7,), 2: (7, 5), 3: (5, 3, 7)}
CASES = [(name, dims) for name in ATTENTION for dims in ATTENTION.load(name).dims]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}d")
def case(request):
    return request.param


@pytest.fixture
def grid(case):
    return (FRAMES if ATTENTION.load(case[0]).takes == "frames" else GRIDS)[case[1]]


@pytest.fixture
def layer(case, grid):
    torch.manual_seed(3)
    return unsettled(ATTENTION.load(case[0]).build(CHANNELS, grid, OTHER)).eval()


def unsettled(layer):
    """Move what starts at zero or one: a fresh layer may look everywhere alike, or leave a parameter without effect."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return layer


def make_inputs(layer, grid, seed=4):
    shapes = {
        "features": ((CHANNELS, *grid),),
        "tokens": ((math.prod(grid), CHANNELS),),
        "skip": ((CHANNELS, *grid), (OTHER, *(side // 2 for side in grid))),
        "pair": ((math.prod(grid), CHANNELS), (7, OTHER)),
        "frames": ((grid[0], math.prod(grid[1:]), CHANNELS),),
        "bag": ((math.prod(grid), CHANNELS),),
    }[layer.takes]
    source = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(IMAGES, *shape, generator=source) for shape in shapes)


@pytest.fixture
def inputs(layer, grid):
    return make_inputs(layer, grid)


def explicit(layer, value=True):
    for module in layer.modules():
        if hasattr(module, "explicit"):
            module.explicit = value


class Model(nn.Module):
    """A layer alone, so that paths of sites are paths of submodules."""

    def __init__(self, layer, grid):
        super().__init__()
        self.layer = layer
        self.attention_sites = placed(layer, "layer", "map", grid)


def test_is_an_attention_layer(layer):
    assert isinstance(layer, AttentionLayer)


def test_a_class_token_may_stand_in_front_where_promised(layer, grid):
    if not layer.class_token:
        pytest.skip("takes no class token")
    tokens = torch.randn(2, math.prod(grid) + 1, CHANNELS)
    _, *maps = layer.attend(tokens)
    for site, found in zip(layer.sites(grid, cls=True), maps, strict=True):
        assert site.cls
        check_tensor(site, found)


def test_fused_and_explicit_paths_agree(layer, inputs):
    fused = layer(*inputs)
    given = layer.attend(*inputs)[0]
    explicit(layer)
    torch.testing.assert_close(layer(*inputs), fused, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(given, fused, atol=2e-6, rtol=1e-5)


def test_output_has_the_promised_shape(layer, inputs):
    wanted = (IMAGES, CHANNELS) if layer.takes == "bag" else inputs[0].shape
    assert layer(*inputs).shape == wanted


def test_feature_maps_come_out_row_by_row_in_memory(layer, inputs):
    """Opacus computes nonsense, and says nothing, for a 2D convolution that is fed a transposed feature map."""
    if layer.takes in ("features", "skip"):
        assert layer(*inputs).is_contiguous()


def test_eval_twice_is_equal(layer, inputs):
    assert torch.equal(layer(*inputs), layer(*inputs))


def test_each_map_is_what_its_site_says_and_attend_gives_it_too(layer, grid, inputs):
    model = Model(layer, grid)
    check_sites("layer", model.attention_sites)
    with Recorder(model) as recorder:
        layer(*inputs)
        seen = recorder.take()
    _, *maps = layer.attend(*inputs)
    for site, found in zip(model.attention_sites, maps, strict=True):
        torch.testing.assert_close(found, seen[site.name], atol=0, rtol=0)
        check_values(site, value_bounds(site, check_tensor(site, found)))
        if site.kind in GATES:
            assert 0 < found.min() < found.max() < 1
        else:
            sums = found.sum(1 if site.kind == "branch" else -1)
            torch.testing.assert_close(sums, torch.ones_like(sums), atol=2e-6, rtol=0)
        assert (found[0] - found[1]).abs().max() > 1e-5, "does not depend on the image"


@torch.no_grad()
def test_a_grid_of_odd_sides_does_too(case):
    """Windows, strips, runs and halves do not divide it; both paths and the shapes of all maps must hold there."""
    kind = ATTENTION.load(case[0])
    grid = (3, *ODD[case[1]])[: case[1] + 1] if kind.takes == "frames" else ODD[case[1]]
    torch.manual_seed(3)
    layer = unsettled(kind.build(CHANNELS, grid, OTHER)).eval()
    inputs = make_inputs(layer, grid)
    output, *maps = layer.attend(*inputs)
    for path in (False, True):
        explicit(layer, path)
        torch.testing.assert_close(layer(*inputs), output, atol=5e-6, rtol=1e-5)
    for site, found in zip(layer.sites(grid), maps, strict=True):
        check_values(site, value_bounds(site, check_tensor(site, found)))


@torch.no_grad()
def test_maps_come_from_the_weights(case, grid, layer, inputs):
    torch.manual_seed(30)
    other = unsettled(ATTENTION.load(case[0]).build(CHANNELS, grid, OTHER)).eval()
    _, *maps = layer.attend(*inputs)
    if list(layer.parameters()):
        assert (
            max(float((one - two).abs().max()) for one, two in zip(maps, other.attend(*inputs)[1:], strict=True)) > 1e-5
        )


@pytest.mark.parametrize("path", [False, True], ids=["default", "explicit"])
def test_gradients_are_finite_and_no_parameter_is_dead(layer, inputs, path):
    explicit(layer, path)
    inputs = tuple(array.requires_grad_() for array in inputs)
    layer(*inputs).square().sum().backward()
    for key, parameter in (*layer.named_parameters(), *((f"input {i}", array) for i, array in enumerate(inputs))):
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


def loop(layer, inputs):
    """Per-sample gradients, one image at a time: the slow twin."""
    rows = []
    for index in range(IMAGES):
        layer.zero_grad()
        layer(*(array[index : index + 1] for array in inputs)).square().sum().backward()
        rows.append({key: parameter.grad.clone() for key, parameter in layer.named_parameters()})
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]} if rows[0] else {}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # the fused kernel under vmap: slower, not wrong
@pytest.mark.parametrize("path", [False, True], ids=["default", "explicit"])
def test_per_sample_gradients_equal_a_loop(layer, inputs, path):
    explicit(layer, path)
    layer, inputs = layer.double(), tuple(array.double() for array in inputs)

    def loss(parameters, *sample):
        return functional_call(layer, parameters, tuple(array[None] for array in sample)).square().sum()

    parameters = dict(layer.named_parameters())
    together = vmap(grad(loss), in_dims=(None, *[0] * len(inputs)), randomness="different")(parameters, *inputs)
    for key, expected in loop(layer, inputs).items():
        torch.testing.assert_close(together[key], expected, atol=1e-9, rtol=1e-8)


@pytest.mark.filterwarnings(
    "ignore:There is a performance drop", "ignore:Full backward hook", "ignore:Using a non-full"
)
def test_per_sample_gradients_of_opacus_equal_a_loop(layer, inputs):
    """Opacus reads the batch from every leaf's first axis: windows or bags folded into it would be clipped apart."""
    if not list(layer.parameters()):
        pytest.skip("has no parameters")
    layer, inputs = layer.double().train(), tuple(array.double() for array in inputs)
    expected = loop(layer, inputs)
    layer.zero_grad()
    engine = GradSampleModule(layer, batch_first=True, loss_reduction="sum", strict=True)
    engine(*inputs).square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad_sample is not None, key
        torch.testing.assert_close(parameter.grad_sample, expected[key], atol=1e-9, rtol=1e-8)


def test_the_batch_is_the_first_axis_of_every_leaf(layer, inputs):
    wrong = []

    def look(path):
        def hook(module, given, output):
            tensors = [item for item in (*given, output) if isinstance(item, torch.Tensor)]
            wrong.extend((path, tuple(t.shape)) for t in tensors if t.ndim and t.shape[0] != IMAGES)

        return hook

    explicit(layer)
    for path, module in layer.named_modules():
        if list(module.parameters(recurse=False)):
            module.register_forward_hook(look(path))
    layer(*inputs)
    assert not wrong


def test_one_image_does_not_see_the_others(layer, inputs):
    layer.double().train()  # in float32 the kernels themselves round otherwise for another number of images
    inputs = tuple(array.double() for array in inputs)
    changed = tuple(array.clone() for array in inputs)
    for array in changed:
        array[1:] = array[1:].flip(0) * 3 + 1
    torch.testing.assert_close(layer(*changed)[0], layer(*inputs)[0], atol=1e-9, rtol=1e-9)
    alone = layer(*(array[:1] for array in inputs))
    torch.testing.assert_close(alone[0], layer(*inputs)[0], atol=1e-9, rtol=1e-9)


def test_every_parameter_lies_in_a_leaf_and_no_buffer_beside_it(layer):
    for module in layer.modules():
        if list(module.parameters(recurse=False)):
            assert not list(module.children())
            assert not list(module.buffers(recurse=False))
        assert not isinstance(module, nn.modules.batchnorm._NormBase)


def mask_of(layer, inputs, grid):
    """Hide the last third of what the layer's mask speaks of."""
    hidden = inputs[1 if layer.takes == "pair" else 0]
    shape = hidden.shape[:3] if layer.takes == "frames" else hidden.shape[:2]
    if layer.takes in ("features", "skip"):
        shape = (IMAGES, *grid)
    mask = torch.ones(shape, dtype=torch.bool)
    mask.flatten(1)[:, -(mask[0].numel() // 3) :] = False
    return mask


@pytest.mark.parametrize("path", [False, True], ids=["default", "explicit"])
def test_what_is_masked_out_changes_nothing_elsewhere(layer, grid, inputs, path):
    explicit(layer, path)
    mask = mask_of(layer, inputs, grid)
    place = 1 if layer.takes == "pair" else 0
    changed = list(inputs)
    if layer.takes in ("features", "skip"):
        hidden = ~mask[:, None].expand_as(inputs[0])
    else:
        hidden = ~mask[..., None].expand_as(inputs[place])
    changed[place] = torch.where(hidden, inputs[place] * -7 + 3, inputs[place])
    before, after = layer(*inputs, mask=mask), layer(*changed, mask=mask)
    assert before.isfinite().all()
    if layer.takes not in ("pair", "bag"):  # their answers stand at no masked place
        before, after = (torch.where(hidden, 0, answer) for answer in (before, after))
    torch.testing.assert_close(after, before, atol=2e-6, rtol=1e-5)
    assert not torch.allclose(before, layer(*inputs)) or layer.takes == "skip", "the mask has no effect"


@torch.no_grad()
def test_masked_keys_get_no_attention(layer, grid, inputs):
    mask = mask_of(layer, inputs, grid)
    _, *maps = layer.attend(*inputs, mask=mask)
    for site, found in zip(layer.sites(grid), maps, strict=True):
        assert found.isfinite().all()
        if site.kind in ("self-attention", "cross-attention") and found.shape[-1] == mask[0].numel():
            assert float((found * ~mask.flatten(1)[:, None, None]).sum()) == 0
        if site.kind == "pooling" and found.shape == mask.shape:
            assert float((found * ~mask).sum()) == 0
