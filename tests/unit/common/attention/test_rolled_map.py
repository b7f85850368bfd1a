"""Rollout, carried from the first layer to the last, against the full product of all layers' matrices."""

import gc
import weakref
from collections import OrderedDict
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
import torch
from torch import nn

from common.attention.base import AttentionSite
from common.attention.pooling import overlaps
from common.attention.recorder import Recorder
from common.attention.reduction import Reduction
from common.attention.rolled_map import RolledMap, chain_of
from common.attention.schema import schema_of
from common.attention.signature import SignatureMeter, signatures
from common.errors import AttentionError
from common.explanations.rollout import rollout_row


def chain(layers, grid, heads=2):
    return tuple(AttentionSite(f"l{i}", "self-attention", "l", grid, True, heads) for i in range(layers))


def draw(seed, layers, places, sharpness=2.0, batch=3, heads=2):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(batch, heads, places + 1, places + 1, generator=generator) * sharpness).softmax(-1)
        for _ in range(layers)
    ]


def rolled(sites, layers, images=100):
    found = RolledMap(sites)
    for site, tensor in zip(sites, layers, strict=True):
        found.add(site, tensor, images)
    return found.finish()


def full_product(layers, grid, cells):
    """Slow twin, in NumPy: Â_L ⋯ Â_1, its class row over the patches, summed into cells by area."""
    matrices = [0.5 * tensor.double().numpy().mean(1) + 0.5 * np.eye(tensor.shape[-1]) for tensor in layers]
    row = reduce(lambda product, matrix: matrix @ product, matrices)[:, 0, 1:]
    maps = (row / row.sum(1, keepdims=True)).reshape(-1, *grid)
    for axis, (size, count) in enumerate(zip(grid, cells, strict=True), 1):
        maps = np.moveaxis(np.tensordot(maps, overlaps(size, count), ([axis], [1])), -1, axis)
    return maps.reshape(len(maps), -1)


@pytest.mark.parametrize(
    ("grid", "cells"), [((3, 5), (4, 4)), ((8, 4), (4, 4)), ((1, 1), (4, 4)), ((3, 2, 5), (2, 4, 4))]
)
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_equals_the_full_product_of_all_layers(grid, cells, depth):
    layers = draw(depth, depth, int(np.prod(grid)))
    expected = full_product(layers, grid, cells)
    np.testing.assert_allclose(rolled(chain(depth, grid), layers), expected, atol=1e-6)
    np.testing.assert_allclose(rolled(chain(depth, grid), layers, images=2), expected, atol=1e-6)


def test_the_row_from_the_last_layer_back_gives_the_same():
    """The trick of the literature: r ← r Â_l from the last layer to the first."""
    layers = draw(3, 5, 12)
    row = rollout_row(layers, torch.eye(13)[:1].expand(3, 13)).numpy()
    cells = row[:, 1:].reshape(3, 3, 4) / (1 - row[:, :1, None])
    expected = overlaps(3, 4) @ cells @ overlaps(4, 4).T
    np.testing.assert_allclose(rolled(chain(5, (3, 4)), layers), expected.reshape(3, 16), atol=1e-6)


def test_rollout_by_hand():
    """The class token looks at patch 3 in the last layer, which looked at patch 0 in the first: half of it is there."""
    first, last = (torch.eye(5)[None, None].repeat(1, 1, 1, 1) for _ in range(2))
    first[..., 4, :] = torch.eye(5)[1]
    last[..., 0, :] = torch.eye(5)[4]
    found = rolled(chain(2, (2, 2)), [first, last]).reshape(4, 4)
    # Row 0: half itself; a quarter patch 3, a quarter patch 0. Over the patches: half each, spread over 2 x 2 cells.
    torch.testing.assert_close(found[:2, :2], torch.full((2, 2), 1 / 8))
    torch.testing.assert_close(found[2:, 2:], torch.full((2, 2), 1 / 8))


def test_a_class_token_that_looks_at_itself_alone_is_uniform():
    torch.testing.assert_close(rolled(chain(2, (4, 4)), [torch.eye(17)[None, None]] * 2), torch.full((1, 16), 1 / 16))


def test_is_a_distribution_for_ten_thousand_stacks_of_layers():
    for seed in range(10):
        found = rolled(chain(3, (2, 3)), draw(seed, 3, 6, sharpness=10 ** (seed / 4 - 1), batch=1024))
        assert found.isfinite().all()
        assert found.min() >= 0
        assert found.norm(dim=1).max() <= 1 + 1e-5
        torch.testing.assert_close(found.sum(1), torch.ones(1024), atol=1e-5, rtol=0)


def test_the_signature_runs_through_layers_it_does_not_measure(tokens_class, images):
    model = tokens_class(layers=6).eval()
    schema = schema_of(model)
    assert schema.sites == ("layer0", "layer2", "layer5")
    assert [block.label for block in schema.blocks if block.chained] == ["layer5/roll_map"]
    with torch.no_grad(), Recorder(model) as recorder:
        model(images)
        layers = list(recorder.take().values())
    rows = signatures(model, images, schema).numpy()
    found = np.stack([schema.split(row)["layer5/roll_map"] for row in rows])
    np.testing.assert_allclose(found, full_product(layers, (4, 4), (4, 4)), atol=1e-6)
    expected = full_product([layers[0], layers[2], layers[5]], (4, 4), (4, 4))
    assert np.abs(found - expected).max() > 1e-3


def test_no_layer_outlives_its_hook(tokens_class, images):
    model, alive, most = tokens_class(layers=4).eval(), [], []
    schema = schema_of(model)
    reduction = Reduction(schema, model.attention_sites)

    def watched(site, tensor):
        gc.collect()
        most.append(sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(tensor))
        return reduction(site, tensor)

    with torch.no_grad(), Recorder(model, reduction.sites, watched) as recorder:
        model(images)
        rows = torch.cat(list(recorder.take().values()), 1)
    assert most == [0, 0, 0, 0]
    torch.testing.assert_close(rows, signatures(model, images, schema))


def test_patients_add(tokens_class, images):
    model = tokens_class(layers=3).eval()
    rows = signatures(model, images).numpy()
    meter = SignatureMeter(model)
    meter.add(images[:2], ["a", "b"])
    meter.add(images[2:], ["a", "a", "c"])
    found = meter.finish()
    means = np.stack([rows[[0, 2, 3]].mean(0), rows[1], rows[4]])
    np.testing.assert_allclose(found.total, means.sum(0), atol=1e-6)
    np.testing.assert_allclose(found.squares, (means**2).sum(0), atol=1e-6)


def test_a_chain_is_one_grid_with_a_class_token():
    sites = chain(3, (4, 4))
    other = replace(sites[1], grid=(2, 2))
    plain = replace(sites[0], name="plain", cls=False)
    assert chain_of(sites[2], (sites[0], other, sites[2], plain)) == (sites[0], sites[2])


def test_stands_at_the_last_layer_alone_and_needs_a_class_token(tokens_class):
    deep = [block.label for block in schema_of(tokens_class(layers=5), cap=99).blocks]
    assert [label for label in deep if label.endswith("roll_map")] == ["layer4/roll_map"]
    plain = schema_of(tokens_class(layers=5, cls=False), cap=99)
    assert not [block for block in plain.blocks if block.chained]


def test_refuses_layers_out_of_order(tokens_class, images):
    model = tokens_class(layers=2)
    model.attention_sites = model.attention_sites[::-1]
    with pytest.raises(AttentionError, match="'layer0' fired where rollout waits for 'layer1'"):
        signatures(model, images)
    assert all(not layer._forward_hooks for layer in model.modules())


@pytest.mark.parametrize(("silent", "says"), [(2, "'layer3' fired where .* waits for 'layer2'"), (3, "did not fire")])
def test_refuses_a_silent_layer_that_it_runs_through(tokens_class, images, silent, says):
    model = tokens_class(layers=4)
    model.layers[silent] = nn.Sequential(OrderedDict(weights=model.layers[silent].weights, skip=nn.Identity()))
    model.layers[silent].forward = lambda tokens: tokens
    with pytest.raises(AttentionError, match=says):
        signatures(model, images)


def test_refuses_a_layer_that_fires_twice(tokens_class, images):
    model = tokens_class(layers=2)
    last = model.layers[1]
    model.layers[1].forward = lambda tokens: type(last).forward(last, type(last).forward(last, tokens))
    with pytest.raises(AttentionError, match="'layer1' fired where rollout waits for none any more"):
        signatures(model, images)
