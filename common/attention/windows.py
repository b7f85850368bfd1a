"""Cut feature maps into windows and put them together again, the batch always first."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from common.attention.base import Grid


def partition(features: Tensor, window: Grid) -> Tensor:
    """Cut into windows, row by row; what is missing at the end is padded with zeros.

    Shapes: [B, *S, C] -> [B, W, n, C], n = product of `window`.
    """
    sides = features.shape[1:-1]
    short = [-side % step for side, step in zip(sides, window, strict=True)]
    # F.pad counts axes from the last one backwards
    padded = F.pad(features, (0, 0, *(width for gap in reversed(short) for width in (0, gap))))
    cut: list[int] = []
    for side, step in zip(padded.shape[1:-1], window, strict=True):
        cut += [side // step, step]
    axes = len(window)
    order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
    tiles = padded.reshape(features.shape[0], *cut, features.shape[-1]).permute(order)
    return tiles.reshape(features.shape[0], -1, math.prod(window), features.shape[-1])


def merge(tiles: Tensor, grid: Grid, window: Grid) -> Tensor:
    """Undo `partition`. Shapes: [B, W, n, C] -> [B, *S, C]."""
    counts = [-(-side // step) for side, step in zip(grid, window, strict=True)]
    axes = len(window)
    order = (0, *(place for axis in range(axes) for place in (1 + axis, 1 + axes + axis)), 2 * axes + 1)
    whole = tiles.reshape(tiles.shape[0], *counts, *window, tiles.shape[-1]).permute(order)
    whole = whole.reshape(
        tiles.shape[0], *(count * step for count, step in zip(counts, window, strict=True)), tiles.shape[-1]
    )
    for axis, side in enumerate(grid):
        whole = whole.narrow(1 + axis, 0, side)
    return whole


def seen_together(grid: Grid, window: Grid, shift: Grid) -> Tensor:
    """Say which places of a window may look at which: not at padding, and not across the edge that the roll joined.

    A padded place sees what the last real place beside it sees, so that no row is empty.

    Shapes: bool [W, n, n], query before key.
    """
    allowed = torch.ones(1, 1, 1, dtype=torch.bool)
    for side, step, rolled in zip(grid, window, shift, strict=True):
        place = torch.arange(-(-side // step) * step)
        wrapped = (place.clamp_max(side - 1) >= side - rolled).view(-1, step)
        pairs = (wrapped[:, :, None] == wrapped[:, None]) & (place < side).view(-1, 1, step)
        allowed = allowed[:, None, :, None, :, None] & pairs[None, :, None, :, None, :]
        allowed = allowed.flatten(4, 5).flatten(2, 3).flatten(0, 1)
    return allowed
