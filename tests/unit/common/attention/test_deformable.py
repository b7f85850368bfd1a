"""Deformable neighbourhood: at first a mean over the window; with any offsets what a loop over points reads."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from common.attention.deformable import DeformableNeighbourhood, read
from common.errors import ConfigError


def features(grid, channels=8, seed=0):
    return torch.randn(2, channels, *grid, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(window, unsettled=False):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = DeformableNeighbourhood(8, window, 2).double()
        if unsettled:
            for linear in (layer.offsets, layer.weights):
                torch.nn.init.normal_(linear.weight, 0, 0.3)
                linear.bias.data += 0.3 * torch.randn(linear.bias.shape)
    return layer


@pytest.mark.parametrize("grid", [(5, 4), (3, 4, 5)])
def test_at_first_it_is_the_mean_over_the_window(grid):
    layer, given = made((3,) * len(grid)), features(grid)
    values = F.linear(given.movedim(1, -1), layer.value.weight, layer.value.bias).movedim(-1, 1)
    pool = F.avg_pool2d if len(grid) == 2 else F.avg_pool3d
    mean = pool(values, 3, stride=1, padding=1, count_include_pad=False)
    wanted = F.linear(mean.movedim(1, -1), layer.proj.weight, layer.proj.bias).movedim(-1, 1)
    torch.testing.assert_close(layer(given), wanted)


def interpolate(volume, point):
    """Σ over the corners around a point of Π (1 − distance), zero outside. volume [C, *S]."""
    found = torch.zeros(volume.shape[0], dtype=volume.dtype)
    for corner in itertools.product(*((math.floor(p), math.floor(p) + 1) for p in point)):
        if all(0 <= c < side for c, side in zip(corner, volume.shape[1:], strict=True)):
            found += volume[(slice(None), *corner)] * math.prod(
                1 - abs(c - p) for c, p in zip(corner, point, strict=True)
            )
    return found


@pytest.mark.parametrize("grid", [(4, 3), (2, 3, 3)])
def test_any_points_are_read_as_a_loop_reads_them(grid):
    layer, given = made((3,) * len(grid), unsettled=True), features(grid)
    out, maps = layer.attend(given)
    tokens = given.flatten(2).transpose(1, 2)
    values = F.linear(tokens, layer.value.weight, layer.value.bias).transpose(1, 2).reshape(given.shape)
    moved = layer.offsets(tokens).reshape(2, tokens.shape[1], 2, -1, len(grid))
    scores = layer.weights(tokens).reshape(2, tokens.shape[1], 2, -1)
    places = list(itertools.product(*map(range, grid)))
    moved, scores, values, maps = moved.detach(), scores.detach(), values.detach(), maps.detach()
    for image, (n, place) in itertools.product(range(2), enumerate(places)):
        mixed = []
        for head in range(2):
            points = [[p + float(d) for p, d in zip(place, step, strict=True)] for step in moved[image, n, head]]
            inside = [float(interpolate(torch.ones(1, *grid), point)) > 1e-4 for point in points]
            row = scores[image, n, head].masked_fill(~torch.tensor(inside), -math.inf).softmax(0)
            torch.testing.assert_close(maps[image, head, n], row)
            part = values[image, 4 * head : 4 * head + 4]
            mixed.append(sum(w * interpolate(part, point) for w, point in zip(row, points, strict=True)))
        wanted = F.linear(torch.cat(mixed), layer.proj.weight, layer.proj.bias)
        torch.testing.assert_close(out[(image, slice(None), *place)], wanted)


def test_reading_at_places_is_indexing():
    given = features((4, 5))
    points = (
        torch.tensor([[1.0, 2.0], [3.0, 4.0], [-1.0, 0.0]], dtype=torch.float64)
        .reshape(1, 1, 3, 2)
        .expand(2, -1, -1, -1)
    )
    found = read(given, points)[:, :, 0]
    torch.testing.assert_close(found[..., 0], given[:, :, 1, 2])
    torch.testing.assert_close(found[..., 1], given[:, :, 3, 4])
    assert not found[..., 2].any()


def test_between_real_and_unreal_only_the_real_is_read():
    layer, given = made((3, 3), unsettled=True), features((4, 4))
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    mask[:, :, 2:] = False
    other = torch.where(mask[:, None], given, given * 5 - 1)
    torch.testing.assert_close(layer(given, mask=mask)[..., :2], layer(other, mask=mask)[..., :2])
    _, maps = layer.attend(given, mask=torch.zeros_like(mask))
    torch.testing.assert_close(maps, torch.full_like(maps, 1 / 9))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="3 heads do not divide 8 channels"):
        DeformableNeighbourhood(8, (3, 3), 3)
