"""Cross-axis attention against loops over lines; it turns with the image, and a line of nothing is not looked at."""

import math

import pytest
import torch
from torch.nn import functional as F

from common.attention.cross_axis import CrossAxisAttention
from common.errors import ConfigError


def made(dims, heads=2, channels=6):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = CrossAxisAttention(channels, dims, heads, kernels=(3, 5)).double()
        with torch.no_grad():
            layer.scale.scale.copy_(torch.linspace(0.5, 4, heads))
        return layer


def features(grid, channels=6):
    return torch.randn(2, channels, *grid, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def project(layer, value):
    """The 1-convolution as a product of matrices."""
    weight = layer.proj.weight.flatten(1)
    return torch.einsum("dc,c...->d...", weight, value) + layer.proj.bias.view(-1, *[1] * (value.ndim - 1))


def strips(layer, image, axis):
    """Every strip by sliding a kernel over a padded line, place by place."""
    mean, variance = image.mean(0), image.var(0, unbiased=False)
    shape = (-1, *[1] * (image.ndim - 1))
    normed = (image - mean) / (variance + 1e-5).sqrt() * layer.norm.weight.view(shape) + layer.norm.bias.view(shape)
    total = torch.zeros_like(image)
    for conv in layer.strips[axis].strips:
        taps = conv.weight.flatten(1)
        reach = taps.shape[1] // 2
        moved = normed.movedim(1 + axis, -1)
        padded = F.pad(moved, (reach, reach))
        for place in range(moved.shape[-1]):
            window = padded[..., place : place + taps.shape[1]]
            seen = torch.einsum("c...k,ck->c...", window, taps) + conv.bias.view(-1, *[1] * (image.ndim - 2))
            total.movedim(1 + axis, -1)[..., place] += seen
    return project(layer, total)


@pytest.mark.parametrize("grid", [(5, 4), (1, 7), (3, 4, 2)])
@torch.no_grad()
def test_equals_loops_over_lines(grid):
    layer, given = made(len(grid)), features(grid)
    out, *maps = layer.attend(given)
    for image, x in enumerate(given):
        seen = [strips(layer, x, axis) for axis in range(len(grid))]
        wanted = x.clone()
        for axis, side in enumerate(grid):
            own, other = seen[axis].movedim(1 + axis, 1), seen[(axis + 1) % len(grid)].movedim(1 + axis, 1)
            mixed = torch.zeros_like(own)
            for head, scale in enumerate(layer.scale.scale):
                part = slice(3 * head, 3 * head + 3)
                for i in range(side):
                    query = own[part, i]
                    scores = torch.stack(
                        [scale * F.cosine_similarity(query.flatten(), other[part, j].flatten(), 0) for j in range(side)]
                    )
                    row = scores.softmax(0)
                    torch.testing.assert_close(maps[axis][image, head, i], row)
                    mixed[part, i] = sum(w * other[part, j] for j, w in enumerate(row)) + query / query.norm()
            wanted += project(layer, mixed.movedim(1, 1 + axis))
        torch.testing.assert_close(out[image], wanted)


@torch.no_grad()
def test_swapping_the_axes_of_image_and_layer_swaps_the_maps():
    layer, turned, given = made(2), made(2), features((5, 4))
    for axis in (0, 1):
        for one, other in zip(layer.strips[axis].strips, turned.strips[1 - axis].strips, strict=True):
            other.weight = torch.nn.Parameter(one.weight.transpose(2, 3))
            other.bias = one.bias
    out, rows, columns = layer.attend(given)
    mirrored, first, second = turned.attend(given.transpose(2, 3))
    torch.testing.assert_close(mirrored.transpose(2, 3), out)
    torch.testing.assert_close(first, columns)
    torch.testing.assert_close(second, rows)


@torch.no_grad()
def test_a_line_of_nothing_gets_no_attention_and_no_image_gives_even_rows():
    layer, given = made(2), features((5, 4))
    mask = torch.ones(2, 5, 4, dtype=torch.bool)
    mask[0, 3:] = False
    mask[1] = False
    _, rows, columns = layer.attend(given, mask=mask)
    assert not rows[0, ..., 3:].any()
    assert rows[0, ..., :3].all()
    assert columns[0].all()
    torch.testing.assert_close(rows[1], torch.full_like(rows[1], 1 / 5))
    torch.testing.assert_close(columns[1], torch.full_like(columns[1], 1 / 4))


def test_no_strip_is_longer_than_reaches_over_the_grid():
    layer = CrossAxisAttention.build(8, (4, 6))
    lengths = [math.prod(conv.kernel_size) for conv in layer.strips[0].strips]
    assert lengths == [7, 11, 11]


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="4 heads do not divide 10 channels"):
        CrossAxisAttention(10)
    with pytest.raises(ConfigError, match=r"strips of lengths \(3, 4\) have no middle"):
        CrossAxisAttention(8, kernels=(3, 4))
