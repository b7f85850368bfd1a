"""Statistics of windows, axes, neighbourhoods, other tokens, bags and branches: loops, cases by hand, bounds."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import nn

from common.attention.bags import BagWeights, BranchWeights
from common.attention.base import AttentionSite
from common.attention.blocks import RULES, SIMPLEX, site_blocks, site_rules
from common.attention.checks import check_tensor, check_values, value_bounds
from common.attention.gates import FeatureGates, SpatialGates
from common.attention.maps import attention_maps
from common.attention.neighbourhood import DilatedNeighbourhood, Neighbourhood, around
from common.attention.pooling import pool_mass
from common.attention.rows import AxialMaps, CrossMaps, NeighbourMaps, WindowMaps
from common.attention.window import ShiftedWindowAttention, WindowAttention
from common.errors import AttentionError

BATCH, HEADS, DRAWS = 4, 2, 1024
SITES = {
    "channel-gate": (AttentionSite("a", "channel-gate", "a"), (12,)),
    "spatial-gate": (AttentionSite("a", "spatial-gate", "a"), (1, 5, 7)),
    "spatial-gate 3d": (AttentionSite("a", "spatial-gate", "a", (3, 5, 4)), (1, 3, 5, 4)),
    "spatial-gate 3d without grid": (AttentionSite("a", "spatial-gate", "a"), (1, 3, 5, 4)),
    "feature-gate 3d": (AttentionSite("a", "feature-gate", "a", (3, 2, 4)), (4, 3, 2, 4)),
    "attention-gate": (AttentionSite("a", "attention-gate", "a"), (1, 6, 6)),
    "feature-gate": (AttentionSite("a", "feature-gate", "a"), (6, 5, 7)),
    "branch": (AttentionSite("a", "branch", "a", branches=3), (3, 8)),
    "branch unknown": (AttentionSite("a", "branch", "a"), (3, 8)),
    "self-attention": (AttentionSite("a", "self-attention", "a", (3, 4), heads=HEADS), (HEADS, 12, 12)),
    "self-attention cls": (AttentionSite("a", "self-attention", "a", (3, 4), True, HEADS), (HEADS, 13, 13)),
    "self-attention 3d": (AttentionSite("a", "self-attention", "a", (2, 2, 3), heads=HEADS), (HEADS, 12, 12)),
    "self-attention cls 3d": (AttentionSite("a", "self-attention", "a", (2, 2, 3), True, HEADS), (HEADS, 13, 13)),
    "cross-attention": (AttentionSite("a", "cross-attention", "a", heads=HEADS, keys=(3, 2)), (HEADS, 5, 6)),
    "cross-attention 3d": (AttentionSite("a", "cross-attention", "a", heads=HEADS, keys=(3, 2, 2)), (HEADS, 5, 12)),
    "cross-attention bare": (AttentionSite("a", "cross-attention", "a"), (HEADS, 5, 6)),
    "window": (
        AttentionSite("a", "window", "a", (5, 6), heads=HEADS, window=(3, 3), shift=(1, 1)),
        (4, HEADS, 9, 9),
    ),
    "window 3d": (AttentionSite("a", "window", "a", (2, 4, 4), window=(2, 2, 2)), (4, HEADS, 8, 8)),
    "axial": (AttentionSite("a", "axial", "a", (5, 3), heads=HEADS, axis=0), (3, HEADS, 5, 5)),
    "axial 3d": (AttentionSite("a", "axial", "a", (2, 5, 3), axis=1), (6, HEADS, 5, 5)),
    "neighbourhood": (AttentionSite("a", "neighbourhood", "a", (3, 4), heads=HEADS, window=(3, 3)), (HEADS, 12, 9)),
    "neighbourhood dilated": (
        AttentionSite("a", "neighbourhood", "a", (5, 4), heads=HEADS, window=(3, 1), dilation=2),
        (HEADS, 20, 3),
    ),
    "neighbourhood 3d": (AttentionSite("a", "neighbourhood", "a", (3, 2, 4), window=(1, 1, 3)), (HEADS, 24, 3)),
    "pooling": (AttentionSite("a", "pooling", "a"), (20,)),
    "pooling groups": (AttentionSite("a", "pooling", "a"), (4, 5)),
}
GATES = ("channel", "spatial", "attention-gate", "feature")


def draw(name, seed, sharpness=1.0, batch=BATCH):
    site, shape = SITES[name]
    scores = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed)) * sharpness
    if name.startswith(GATES):
        return site, scores.sigmoid()
    return site, scores.softmax(1 if site.kind == "branch" else -1)


def test_every_kind_has_a_case():
    assert {site.kind for site, _ in SITES.values()} == set(RULES)


@pytest.mark.parametrize("name", SITES)
def test_blocks_are_distributions_or_in_the_unit_interval_and_the_norm_is_at_most_one(name):
    """10,240 draws of each case, from flat maps to maps with one open place."""
    for seed in range(10):
        site, tensor = draw(name, seed, sharpness=10 ** (seed / 4 - 1), batch=DRAWS)
        check_values(site, value_bounds(site, check_tensor(site, tensor)))
        rules = site_rules(site)
        blocks = site_blocks(site, tensor, [rule.name for rule in rules])
        squares = torch.zeros(DRAWS)
        for rule in rules:
            values = blocks[rule.name]
            assert values.shape == (DRAWS, rule.length(site))
            assert values.isfinite().all()
            assert values.min() >= 0
            assert values.max() <= 1 + 1e-5
            if rule.kind in SIMPLEX:
                torch.testing.assert_close(values.sum(1), torch.ones(DRAWS), atol=1e-4, rtol=0)
                squares += values.square().sum(1) / len(rules)
            else:
                squares += values.square().sum(1) / values.shape[1] / len(rules)
        assert squares.max() <= 1 + 1e-5


def test_window_received_is_a_loop_over_queries():
    site, tensor = draw("window", 1)
    (rows, columns), (step, _), (shift, _) = site.grid, site.window, site.shift
    expected = np.zeros((BATCH, rows, columns))
    for window in range(4):
        top, left = window // 2 * step, window % 2 * step
        for query in range(9):
            if top + query // 3 >= rows or left + query % 3 >= columns:
                continue  # padding
            for key in range(9):
                row, column = top + key // 3, left + key % 3
                if row < rows and column < columns:
                    there = ((row + shift) % rows, (column + shift) % columns)
                    expected[:, *there] += tensor[:, window, :, query, key].sum(1).numpy()
    expected /= expected.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(WindowMaps(tensor, site).received().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("layer", [WindowAttention, ShiftedWindowAttention])
def test_a_change_at_one_place_changes_what_a_real_layer_gives_there(layer):
    torch.manual_seed(0)
    built = layer.build(8, (8, 6)).eval()
    features = torch.randn(2, 8, 8, 6)
    with torch.no_grad():
        _, maps = built.attend(features)
    (site,) = built.sites((8, 6))
    received = WindowMaps(maps, site).received()
    torch.testing.assert_close(received.sum((1, 2)), torch.ones(2))
    changed = features.clone()
    changed[:, :, 3, 2] *= 9
    with torch.no_grad():
        moved = WindowMaps(built.attend(changed)[1], site).received() - received
    assert moved[:, 3, 2].abs().min() > 0


def test_window_offsets_by_hand():
    site = AttentionSite("a", "window", "a", (3, 3), window=(3, 3))
    own = torch.eye(9)[None, None, None]
    profile = WindowMaps(own, site).offset_prof()
    torch.testing.assert_close(profile, torch.eye(8)[:1])
    far = torch.zeros(1, 1, 1, 9, 9)
    far[..., 8] = 1  # all look at the lower right corner: distances 2.8, 2.2, 2, 2.2, 1.4, 1, 2, 1, 0
    expected = torch.tensor([[1, 3, 4, 1, 0, 0, 0, 0]]) / 9
    torch.testing.assert_close(WindowMaps(far, site).offset_prof(), expected)


def test_axial_places_and_distances_by_loop():
    site, tensor = draw("axial 3d", 2)
    view = AxialMaps(tensor, site)
    received = view.received()
    expected = np.zeros((BATCH, 2, 5, 3))
    for line in range(6):
        for key in range(5):
            mean = tensor[:, line, :, :, key].mean((1, 2)).numpy() / 6
            expected[:, line // 3, key, line % 3] = mean
    np.testing.assert_allclose(received.numpy(), expected, atol=1e-7)
    one = torch.zeros(1, 1, 1, 5, 5)
    one[..., 0] = 1  # all look at the first place: distances 0, 1/4, 1/2, 3/4, 1
    histogram = AxialMaps(one, AttentionSite("a", "axial", "a", (5, 1))).dist_hist()
    assert float(histogram @ ((torch.arange(8) + 0.5) / 8)) == pytest.approx(0.5, abs=1e-6)


def test_neighbourhood_offsets_by_hand():
    site = AttentionSite("a", "neighbourhood", "a", (1, 1), window=(3, 3))
    uniform = torch.full((1, 1, 1, 9), 1 / 9)
    expected = torch.tensor([[1, 8, 0, 0, 0, 0, 0, 0]]) / 9  # the diagonal's 1.41 rounds to 1
    torch.testing.assert_close(NeighbourMaps(uniform, site).offset_prof(), expected)


@pytest.mark.parametrize(
    ("grid", "window", "dilation"),
    [((5, 4), (3, 3), 1), ((5, 4), (3, 1), 2), ((3, 2, 4), (1, 1, 3), 1), ((6,), (3,), 2)],
)
def test_neighbourhood_received_is_a_loop_over_queries(grid, window, dilation):
    """Slow twin; each weight goes to query + offset · dilation, and what lies outside is nobody's."""
    site = AttentionSite("a", "neighbourhood", "a", grid, heads=2, window=window, dilation=dilation)
    rows = torch.rand(2, 2, math.prod(grid), math.prod(window), generator=torch.Generator().manual_seed(5))
    expected = np.zeros((2, *grid))
    for query, place in enumerate(np.ndindex(grid)):
        for k, index in enumerate(np.ndindex(window)):
            there = tuple(p + dilation * (i - side // 2) for p, i, side in zip(place, index, window, strict=True))
            if all(0 <= t < side for t, side in zip(there, grid, strict=True)):
                expected[:, *there] += rows[:, :, query, k].sum(1).numpy()
    expected /= expected.reshape(2, -1).sum(1).reshape(2, *[1] * len(grid))
    np.testing.assert_allclose(NeighbourMaps(rows, site).received().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("layer", [Neighbourhood, DilatedNeighbourhood])
@pytest.mark.parametrize("grid", [(6, 7), (4, 5, 3)])
def test_neighbourhood_received_of_a_real_layer_is_that_of_the_full_map(layer, grid):
    """The place that value vectors come from: mixing one-hot values tells who was looked at, without any offsets."""
    torch.manual_seed(2)
    built = layer.build(8, grid).eval()
    torch.nn.init.normal_(built.bias.table)
    with torch.no_grad():
        _, maps = built.attend(torch.randn(2, 8, *grid))
    (site,) = built.sites(grid)
    places = math.prod(grid)
    values = torch.eye(places).expand(2, maps.shape[1], places, places)
    full = torch.einsum("bhnk,bhnkd->bhnd", maps, around(values, grid, site.window, site.dilation))
    torch.testing.assert_close(full.sum(-1), torch.ones(2, maps.shape[1], places))  # nothing is lost at the border
    expected = full.mean((1, 2)).reshape(2, *grid)
    torch.testing.assert_close(NeighbourMaps(maps, site).received(), expected)


def test_cross_received_and_sink_by_hand():
    site, tensor = draw("cross-attention", 3)
    view = CrossMaps(tensor, site)
    received = tensor.mean((1, 2))
    torch.testing.assert_close(view.sink()[:, 0], received.amax(1))
    torch.testing.assert_close(view.received_map(), pool_mass(received.reshape(-1, 3, 2), 4).flatten(1))
    divergence = [
        np.mean([jensenshannon(image[0, query], image[1, query], base=2) ** 2 for query in range(5)])
        for image in tensor.double().numpy()
    ]
    np.testing.assert_allclose(view.head_div()[:, 0], divergence, atol=1e-5)


def test_bag_masses_by_hand():
    site = AttentionSite("a", "pooling", "a")
    uniform = BagWeights(torch.full((1, 100), 0.01), site)
    torch.testing.assert_close(uniform.lorenz(), torch.tensor([[0.01, 0.05, 0.10, 0.25, 0.50]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(uniform.effective(), torch.ones(1, 1), atol=1e-4, rtol=0)
    single = BagWeights(torch.eye(100)[:1], site)
    torch.testing.assert_close(single.lorenz(), torch.ones(1, 5))
    torch.testing.assert_close(single.effective(), torch.full((1, 1), 0.01), atol=1e-4, rtol=0)


def test_the_order_of_a_bag_changes_nothing():
    site, tensor = draw("pooling", 4)
    turned = tensor[:, torch.randperm(20)]
    for rule in site_rules(site):
        there, back = (site_blocks(site, each, [rule.name])[rule.name] for each in (tensor, turned))
        torch.testing.assert_close(there, back)


def test_branches_from_alike_to_one_alone():
    site = SITES["branch"][0]
    alike = BranchWeights(torch.full((1, 4, 6), 0.25), site).collapse()
    torch.testing.assert_close(alike, torch.tensor([[0.25, 0.0]]))
    alone = torch.zeros(1, 4, 6)
    alone[:, 2] = 1
    torch.testing.assert_close(BranchWeights(alone, site).collapse(), torch.ones(1, 2))


def test_usage_is_a_loop_over_channels_and_needs_the_number_of_branches():
    site, tensor = draw("branch", 6)
    found = site_blocks(site, tensor, ["usage"])["usage"]
    expected = [[np.mean([image[m, c] for c in range(8)]) for m in range(3)] for image in tensor.double().numpy()]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [rule.name for rule in site_rules(site)] == ["usage", "ent_hist", "collapse"]
    assert [rule.name for rule in site_rules(SITES["branch unknown"][0])] == ["ent_hist", "collapse"]
    with pytest.raises(AttentionError, match=r"Allowed for kind branch is \[B, M, C\] with M = 4"):
        check_tensor(replace(site, branches=4), tensor)


def test_maps_of_volumes_keep_depth_and_sum_to_the_plane():
    """Slow twin: every voxel is shared among 2 x 4 x 4 cells by the volume of what they have in common."""
    site, tensor = draw("spatial-gate 3d", 7)
    found = site_blocks(site, tensor, ["mass_map"])["mass_map"].reshape(BATCH, 2, 4, 4).numpy()
    mass = tensor[:, 0].double().numpy()
    expected = np.zeros((BATCH, 2, 4, 4))
    for cell in np.ndindex(2, 4, 4):
        for voxel in np.ndindex(3, 5, 4):
            share = 1.0
            for c, v, cells, side in zip(cell, voxel, (2, 4, 4), (3, 5, 4), strict=True):
                share *= max(0.0, min((v + 1) / side, (c + 1) / cells) - max(v / side, c / cells)) * side
            expected[:, *cell] += share * mass[:, *voxel]
    np.testing.assert_allclose(found, expected / mass.sum((1, 2, 3))[:, None, None, None], atol=1e-6)
    bare = site_blocks(SITES["spatial-gate 3d without grid"][0], tensor, ["mass_map"])["mass_map"]
    np.testing.assert_allclose(found.sum(1).reshape(BATCH, 16), bare, atol=1e-6)
    for name in ("self-attention 3d", "self-attention cls 3d", "cross-attention 3d", "window 3d", "neighbourhood 3d"):
        rule = site_rules(SITES[name][0])[0]
        assert (rule.kind, rule.length(SITES[name][0]), rule.grid(SITES[name][0])) == ("map", 32, (2, 4, 4))


def test_a_gate_with_a_grid_has_as_many_axes():
    site, tensor = draw("spatial-gate 3d", 8)
    with pytest.raises(AttentionError, match=r"Allowed for kind spatial-gate is \[B, 1, \*S\]"):
        check_tensor(replace(site, grid=(5, 4)), tensor)


def test_a_volume_of_equal_slices_is_its_slice():
    site = AttentionSite("a", "spatial-gate", "a")
    flat = torch.rand(2, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    volume = flat[:, :, None].expand(2, 1, 5, 6, 8)
    for name in ("mass_map", "gate_hist", "geom", "total"):
        there, back = (getattr(SpatialGates(each, site), name)() for each in (flat, volume))
        torch.testing.assert_close(back, there, atol=1e-5, rtol=1e-5)


def test_gates_of_equal_channels_are_a_spatial_gate():
    site = AttentionSite("a", "feature-gate", "a")
    flat = torch.rand(2, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    for name in ("mass_map", "gate_hist", "ent_hist", "geom", "total"):
        there = getattr(SpatialGates(flat, site), name)()
        torch.testing.assert_close(getattr(FeatureGates(flat.expand(2, 4, 6, 8), site), name)(), there)


class Windowed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = ShiftedWindowAttention.build(4, (8, 8))
        self.attention_sites = tuple(
            AttentionSite("w", s.kind, "layer.maps", s.grid, heads=s.heads, window=s.window, shift=s.shift)
            for s in self.layer.sites((8, 8))
        )

    def forward(self, images):
        return self.layer(images.expand(-1, 4, -1, -1))


def test_windows_can_be_shown_on_the_image():
    torch.manual_seed(0)
    maps = attention_maps(Windowed().eval(), torch.randn(2, 1, 8, 8))
    assert maps["w"].shape == (2, 8, 8)
    torch.testing.assert_close(maps["w"].sum((1, 2)), torch.ones(2))
    assert math.isfinite(float(maps["w"].max()))
