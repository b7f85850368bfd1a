"""Every statistic against a loop, another library, or a case that one can work out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from torch.nn import functional as F

from common.attention.base import AttentionSite
from common.attention.blocks import RULES, site_blocks, site_rules
from common.attention.histograms import head_divergence, normalised_entropy, soft_histogram
from common.attention.pooling import overlaps, pool_cells, pool_mass, pooling_matrix
from common.attention.tokens import patch_distances

CHANNEL = AttentionSite("c", "channel-gate", "c")
SPATIAL = AttentionSite("s", "spatial-gate", "s")
CLS = AttentionSite("t", "self-attention", "t", (3, 5), cls=True, heads=3)
PLAIN = AttentionSite("t", "self-attention", "t", (3, 5), cls=False, heads=3)


def attention(seed, tokens, heads=3, sharpness=2.0):
    scores = torch.randn(4, heads, tokens, tokens, generator=torch.Generator().manual_seed(seed))
    return (scores * sharpness).softmax(-1)


def slow_histogram(values, bins):
    total = np.zeros(bins)
    for value in values:
        weights = np.array([max(0.0, 1 - bins * abs(value - (j + 0.5) / bins)) for j in range(bins)])
        total += weights / weights.sum()
    return total / len(values)


@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)), st.integers(2, 9))
def test_soft_histogram_equals_the_loop(values, bins):
    fast = soft_histogram(torch.from_numpy(values)[None], bins)[0].numpy()
    np.testing.assert_allclose(fast, slow_histogram(values, bins), atol=1e-9)
    assert fast.min() >= 0
    assert fast.sum() == pytest.approx(1)


def test_soft_histogram_by_hand():
    values = torch.tensor([[0.0, 1.0], [0.25, 0.25], [0.5, 0.5]])
    expected = [[0.5, 0, 0, 0.5], [0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0]]
    torch.testing.assert_close(soft_histogram(values, 4), torch.tensor(expected))


@given(arrays(np.float64, 12, elements=st.floats(0, 1)).filter(lambda v: v.sum() > 1e-3))
def test_entropy_equals_scipy(values):
    rows = torch.from_numpy(values / values.sum())[None]
    assert normalised_entropy(rows).item() == pytest.approx(entropy(rows[0].numpy()) / math.log(12), abs=1e-9)
    assert normalised_entropy(torch.ones(1, 1)).item() == 0


def test_head_divergence_equals_the_loop():
    rows = attention(1, 16)
    fast = head_divergence(rows, normalised_entropy(rows))
    for image, value in zip(rows.double().numpy(), fast, strict=True):
        pairs = [
            jensenshannon(image[first, query], image[second, query], base=2) ** 2
            for first in range(3)
            for second in range(first)
            for query in range(16)
        ]
        assert value.item() == pytest.approx(np.mean(pairs), abs=1e-5)


def test_heads_that_agree_and_heads_that_never_meet():
    same = attention(2, 8, heads=1).expand(-1, 4, -1, -1)
    assert head_divergence(same, normalised_entropy(same)).abs().max() < 1e-6
    disjoint = torch.zeros(1, 2, 8, 8)
    disjoint[:, 0, :, :4] = 0.25
    disjoint[:, 1, :, 4:] = 0.25
    assert head_divergence(disjoint, normalised_entropy(disjoint)).item() == pytest.approx(1)
    one = attention(3, 8, heads=1)
    assert head_divergence(one, normalised_entropy(one)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("site", [CLS, PLAIN])
def test_distances_equal_the_loop(site):
    first = int(site.cls)
    rows = attention(4, 15 + first)
    found = site_blocks(site, rows, ["dist_hist", "head_dist"])
    diagonal = math.hypot(2, 4)
    for image in range(4):
        distances = np.zeros((3, 15))
        for head in range(3):
            for query in range(15):
                weights = [rows[image, head, first + query, first + key].item() for key in range(15)]
                apart = [math.dist(divmod(query, 5), divmod(key, 5)) / diagonal for key in range(15)]
                distances[head, query] = np.dot(weights, apart) / sum(weights)
        np.testing.assert_allclose(found["head_dist"][image], distances.mean(1), atol=1e-5)
        np.testing.assert_allclose(found["dist_hist"][image], slow_histogram(distances.ravel(), 8), atol=1e-5)


def test_patch_distances_reach_from_zero_to_one():
    apart = patch_distances((3, 5), torch.device("cpu"))
    assert apart[0, 14] == 1
    assert apart.diagonal().abs().max() == 0
    assert apart.equal(apart.T)
    assert apart[0, 1].item() == pytest.approx(1 / math.hypot(2, 4))
    assert patch_distances((1, 1), torch.device("cpu")).tolist() == [[0]]


@pytest.mark.parametrize("site", [CLS, PLAIN])
def test_self_attention_blocks_equal_the_loop(site):
    first = int(site.cls)
    rows = attention(5, 15 + first)
    found = site_blocks(site, rows, [rule.name for rule in site_rules(site)])
    for image in range(4):
        one = rows[image].double().numpy()
        entropies = entropy(one, axis=-1) / math.log(15 + first)
        np.testing.assert_allclose(found["ent_hist"][image], slow_histogram(entropies.ravel(), 6), atol=1e-5)
        np.testing.assert_allclose(found["head_ent"][image], entropies.mean(1), atol=1e-5)
        received = one.mean((0, 1))
        assert found["sink"][image].item() == pytest.approx(received.max(), abs=1e-6)
        if site.cls:
            looked = np.mean([head[0, 1:] / head[0, 1:].sum() for head in one], 0)
            assert found["cls_self"][image].item() == pytest.approx(one[:, 0, 0].mean(), abs=1e-6)
        else:
            looked = received
        pooled = overlaps(3, 4) @ looked.reshape(3, 5) @ overlaps(5, 4).T
        name = "cls_map" if site.cls else "received_map"
        np.testing.assert_allclose(found[name][image], pooled.ravel(), atol=1e-6)


def test_class_token_decides_which_blocks_exist():
    assert [rule.name for rule in site_rules(CLS)] == [
        "cls_map",
        "ent_hist",
        "dist_hist",
        "head_div",
        "sink",
        "cls_self",
        "head_ent",
        "head_dist",
    ]
    assert [rule.name for rule in site_rules(PLAIN)][:2] == ["received_map", "ent_hist"]
    unknown = AttentionSite("t", "self-attention", "t", (3, 5))
    assert not {"head_ent", "head_dist"} & {rule.name for rule in site_rules(unknown)}


def test_a_sink_and_a_class_token_that_looks_at_itself():
    rows = torch.zeros(1, 3, 16, 16)
    rows[..., 0] = 1
    found = site_blocks(CLS, rows, ["sink", "cls_self", "ent_hist", "cls_map"])
    assert found["sink"].item() == found["cls_self"].item() == 1
    assert found["ent_hist"][0].tolist() == [1, 0, 0, 0, 0, 0]
    # Nothing falls on the patches: uniform over them, pooled.
    torch.testing.assert_close(found["cls_map"][0], torch.full((16,), 1 / 16))


def test_rows_in_bfloat16_are_brought_back_to_sum_one():
    rows = attention(6, 16).bfloat16()
    for name, block in site_blocks(CLS, rows, ["cls_map", "ent_hist", "dist_hist"]).items():
        assert block.dtype == torch.float32, name
        torch.testing.assert_close(block.sum(1), torch.ones(4))


def test_channel_gates_by_hand():
    gates = torch.tensor([[0.0, 0.01, 0.5, 0.5, 0.96, 1.0, 0.5, 0.5] * 4])
    found = site_blocks(CHANNEL, gates, ["gate_mom", "gate_prof", "gate_hist"])
    values = gates[0].double().numpy()
    expected = [values.mean(), 2 * values.std(), 0.25, 0.25]
    np.testing.assert_allclose(found["gate_mom"][0], expected, atol=1e-6)
    np.testing.assert_allclose(found["gate_prof"][0], values.reshape(16, 2).mean(1), atol=1e-6)
    np.testing.assert_allclose(found["gate_hist"][0], slow_histogram(values, 8), atol=1e-6)


def test_extreme_channel_gates_stay_in_the_unit_interval():
    gates = torch.tensor([[0.0, 1.0] * 5, [1.0] * 10, [0.0] * 10])
    moments = site_blocks(CHANNEL, gates, ["gate_mom"])["gate_mom"]
    assert moments.tolist() == [[0.5, 1, 0.5, 0.5], [1, 0, 0, 1], [0, 0, 1, 0]]
    one = site_blocks(CHANNEL, torch.tensor([[0.3]]), ["gate_mom", "gate_prof"])
    assert one["gate_mom"][0, 1] == 0
    torch.testing.assert_close(one["gate_prof"], torch.full((1, 16), 0.3))


def test_spatial_gates_equal_the_loop():
    gates = torch.rand(3, 1, 6, 8, generator=torch.Generator().manual_seed(7))
    found = site_blocks(SPATIAL, gates, [rule.name for rule in RULES["spatial-gate"]])
    for image, gate in enumerate(gates[:, 0].double().numpy()):
        mass = gate / gate.sum()
        rows, columns = (np.arange(6) + 0.5) / 6, (np.arange(8) + 0.5) / 8
        row, column = mass.sum(1) @ rows, mass.sum(0) @ columns
        variance = mass.sum(1) @ (rows - row) ** 2 + mass.sum(0) @ (columns - column) ** 2
        np.testing.assert_allclose(found["geom"][image], [row, column, math.sqrt(2 * variance)], atol=1e-5)
        np.testing.assert_allclose(found["gate_hist"][image], slow_histogram(gate.ravel(), 8), atol=1e-5)
        ent = entropy(mass.ravel()) / math.log(48)
        np.testing.assert_allclose(found["ent_hist"][image], slow_histogram([ent], 6), atol=1e-4)
        assert found["total"][image].item() == pytest.approx(gate.mean(), abs=1e-6)
        np.testing.assert_allclose(
            found["mass_map"][image], (overlaps(6, 4) @ mass @ overlaps(8, 4).T).ravel(), atol=1e-6
        )


def test_spatial_gates_at_the_edges():
    corners = torch.zeros(1, 1, 8, 8)
    corners[0, 0, 0, 0] = corners[0, 0, 7, 7] = 1
    spread = site_blocks(SPATIAL, corners, ["geom"])["geom"][0]
    np.testing.assert_allclose(spread, [0.5, 0.5, 7 / 8], atol=1e-6)  # pixel centres lie 7/8 of a side apart
    closed = site_blocks(SPATIAL, torch.zeros(1, 1, 8, 8), ["mass_map", "ent_hist", "total"])
    torch.testing.assert_close(closed["mass_map"][0], torch.full((16,), 1 / 16))
    assert closed["ent_hist"][0, -1].item() == pytest.approx(1, abs=1e-5)
    assert closed["total"].item() == 0


@pytest.mark.parametrize("size", [4, 8, 24])
def test_pooling_equals_torch_where_it_divides(size):
    maps = torch.rand(2, size, size)
    expected = F.avg_pool2d(maps, size // 4) * (size // 4) ** 2
    torch.testing.assert_close(pool_mass(maps, 4), expected)


@given(st.integers(1, 40), st.integers(1, 40))
def test_pooling_keeps_all_mass_and_its_centre(height, width):
    maps = torch.rand(1, height, width, dtype=torch.float64)
    pooled = pool_mass(maps, 4)
    assert pooled.sum().item() == pytest.approx(maps.sum().item())
    np.testing.assert_allclose(overlaps(height, 4).sum(0), 1)
    flat = pool_mass(torch.ones(1, height, width, dtype=torch.float64), 4)
    np.testing.assert_allclose(flat, height * width / 16)


@pytest.mark.parametrize("grid", [(7,), (3, 5), (8, 4), (3, 2, 5)])
def test_the_pooling_matrix_pools(grid):
    mass = torch.rand(3, math.prod(grid), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    matrix = pooling_matrix(grid)
    np.testing.assert_allclose(matrix.sum(1), 1)
    np.testing.assert_allclose(mass.numpy() @ matrix, pool_cells(mass, grid), atol=1e-12)


def test_histograms_have_gradients():
    values = torch.rand(1, 20, requires_grad=True)
    (soft_histogram(values, 8) * torch.arange(8)).sum().backward()
    # Inside the outer centres the mean bin is bins * v - 1/2: its slope is bins / n.
    inner = (values > 1 / 16) & (values < 15 / 16)
    torch.testing.assert_close(values.grad[inner], torch.full_like(values.grad[inner], 8 / 20))
