"""Statistics of softmax maps that see part of the image: windows, axes, neighbourhoods, other tokens."""

import math
from functools import cached_property

import torch
from torch import Tensor

from common.attention.base import AttentionSite, Grid
from common.attention.histograms import TINY, head_divergence, normalised_entropy, soft_histogram
from common.attention.pooling import overlaps, pool_cells
from common.attention.windows import merge, partition

RADII = 8
"""Offsets are sorted by their length, rounded to whole places: 0, 1, … 6, and 7 or more."""


class CrossMaps:
    """Attention of queries over other tokens.

    Shapes: rows [B, H, N, M], sum one over M; `site.keys` is the grid of the M keys, where they have one.
    """

    def __init__(self, tensor: Tensor, site: AttentionSite) -> None:
        self.rows = tensor.float()
        self.keys = site.keys or (1, self.rows.shape[-1])

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy of each row over log M, [B, H, N]."""
        return normalised_entropy(self.rows)

    @cached_property
    def received(self) -> Tensor:
        """Attention that each key receives, mean over heads and queries, [B, M], sum 1."""
        return self.rows.mean((1, 2))

    def received_map(self) -> Tensor:
        """Which keys are looked at, on their grid, [B, cells]."""
        return pool_cells(self.received, self.keys)

    def ent_hist(self) -> Tensor:
        """Histogram of the rows' entropies over heads and queries, [B, 6]."""
        return soft_histogram(self.entropy.flatten(1), 6)

    def head_ent(self) -> Tensor:
        """Mean entropy of each head, [B, H]."""
        return self.entropy.mean(2)

    def sink(self) -> Tensor:
        """Most attention that one key receives on average, [B, 1]."""
        return self.received.amax(1, keepdim=True).clamp(0, 1)

    def head_div(self) -> Tensor:
        """How differently the heads look, [B, 1]: 0 all alike, 1 disjoint."""
        return head_divergence(self.rows, self.entropy)[:, None]


class WindowMaps:
    """Attention inside windows; queries that are padding do not count.

    Shapes: rows [B, H, Q, n] of the Q real queries, from [B, W, H, n, n].
    """

    def __init__(self, tensor: Tensor, site: AttentionSite) -> None:
        self.site, self.grid, self.window = site, site.grid or (), site.window or ()
        real = partition(torch.ones(1, *self.grid, 1), self.window)[0, :, :, 0] > 0
        self.tensor = tensor.float() * real[None, :, None, :, None].to(tensor.device)
        flat = self.tensor.transpose(1, 2).flatten(2, 3)
        self.rows = flat[:, :, real.flatten().to(tensor.device)]
        self.places = real.shape[1]

    def ent_hist(self) -> Tensor:
        """Histogram of the rows' entropies over heads and queries, [B, 6]."""
        return soft_histogram(normalised_entropy(self.rows).flatten(1), 6)

    def head_ent(self) -> Tensor:
        """Mean entropy of each head, [B, H]."""
        return normalised_entropy(self.rows).mean(2)

    def offset_prof(self) -> Tensor:
        """Attention by how far away it falls inside the window, [B, 8]."""
        index = torch.cartesian_prod(*map(torch.arange, self.window)).reshape(self.places, -1).double()
        radius = torch.cdist(index, index).round().long().clamp_max(RADII - 1).to(self.tensor.device)
        spent = self.tensor.sum((1, 2)).flatten(1)
        return by_radius(spent, radius.flatten())

    def received(self) -> Tensor:
        """Attention that each place of the grid receives, [B, *S], sum 1: windows merged, the roll undone."""
        spent = self.tensor.sum((2, 3))[..., None]
        whole = merge(spent, self.grid, self.window)[..., 0]
        shift = self.site.shift or (0,) * len(self.grid)
        whole = torch.roll(whole, shift, tuple(range(1, whole.ndim)))
        total = whole.flatten(1).sum(1).clamp_min(TINY)
        return whole / total.reshape(-1, *[1] * len(self.grid))

    def received_map(self) -> Tensor:
        """Which places are looked at, [B, cells]."""
        return pool_cells(self.received().flatten(1), self.grid)


class AxialMaps:
    """Attention along one axis.

    Shapes: rows [B, L, H, n, n].
    """

    def __init__(self, tensor: Tensor, site: AttentionSite) -> None:
        self.rows, self.grid, self.axis = tensor.float(), site.grid or (), site.axis
        self.size = self.rows.shape[-1]

    def ent_hist(self) -> Tensor:
        """Histogram of the rows' entropies over lines, heads and queries, [B, 6]."""
        return soft_histogram(normalised_entropy(self.rows).flatten(1), 6)

    def head_ent(self) -> Tensor:
        """Mean entropy of each head, [B, H]."""
        return normalised_entropy(self.rows).mean((1, 3))

    def dist_hist(self) -> Tensor:
        """Histogram of mean distances along the axis, over its length, [B, 8]."""
        place = torch.arange(self.size, device=self.rows.device)
        apart = (place[:, None] - place).abs().float() / max(1, self.size - 1)
        return soft_histogram((self.rows * apart).sum(-1).flatten(1).clamp(0, 1), 8)

    def received_prof(self) -> Tensor:
        """Attention that each eighth of the axis receives, [B, 8]."""
        share = torch.from_numpy(overlaps(self.size, 8)).to(self.rows)
        return self.rows.mean((1, 2, 3)) @ share.T

    def received(self) -> Tensor:
        """Attention that each place of the grid receives, [B, *S], sum 1."""
        lines = self.rows.mean((2, 3)) / self.rows.shape[1]
        others = [side for place, side in enumerate(self.grid) if place != self.axis]
        return lines.reshape(-1, *others, self.size).movedim(-1, 1 + self.axis)


class NeighbourMaps:
    """Attention over the places around each query.

    Shapes: rows [B, H, N, K].
    """

    def __init__(self, tensor: Tensor, site: AttentionSite) -> None:
        self.rows, self.grid = tensor.float(), site.grid or ()
        self.window, self.dilation = site.window or (), site.dilation

    def ent_hist(self) -> Tensor:
        """Histogram of the rows' entropies over heads and queries, [B, 6]."""
        return soft_histogram(normalised_entropy(self.rows).flatten(1), 6)

    def head_ent(self) -> Tensor:
        """Mean entropy of each head, [B, H]."""
        return normalised_entropy(self.rows).mean(2)

    def offset_prof(self) -> Tensor:
        """Attention by how many steps away it falls, dilation not counted, [B, 8]."""
        return by_radius(self.rows.sum((1, 2)), _radii(self.window).to(self.rows.device))

    def received(self) -> Tensor:
        """Attention that each place of the grid receives, mean over heads and queries, [B, *S], sum 1.

        Each weight goes back to the place that its offset and the dilation point at. The layer gives what lies outside
        the grid the weight zero; were there any, it would be left out and the rest renormalised.
        """
        spent = self.rows.mean(1).flatten(1)
        target = _targets(self.grid, self.window, self.dilation).to(spent.device)
        places = math.prod(self.grid)
        whole = spent.new_zeros(len(spent), places + 1).index_add(1, target, spent)[:, :places] + TINY
        return (whole / whole.sum(1, keepdim=True)).reshape(-1, *self.grid)

    def received_map(self) -> Tensor:
        """Which places are looked at, [B, cells]."""
        return pool_cells(self.received().flatten(1), self.grid)


def by_radius(spent: Tensor, radius: Tensor) -> Tensor:
    """Sum attention by the radius at which it falls, and bring it to a sum of one. Shapes: [B, K], [K] -> [B, 8]."""
    bins = torch.zeros(len(spent), RADII, device=spent.device).index_add(1, radius, spent)
    return bins / bins.sum(1, keepdim=True).clamp_min(TINY)


def _radii(window: Grid) -> Tensor:
    """Give the rounded length of each offset of a neighbourhood from its centre, row by row, [K]."""
    return _offsets(window).double().square().sum(1).sqrt().round().long().clamp_max(RADII - 1)


def _offsets(window: Grid) -> Tensor:
    """Give the steps from a neighbourhood's centre to each of its places, row by row, [K, axes]."""
    steps = [torch.arange(side) - side // 2 for side in window]
    return torch.cartesian_prod(*steps).reshape(math.prod(window), -1)


def _targets(grid: Grid, window: Grid, dilation: int) -> Tensor:
    """Give for each query and offset the place that it looks at, or the number of places if outside: [N * K]."""
    places = torch.cartesian_prod(*map(torch.arange, grid)).reshape(math.prod(grid), 1, -1)
    there = places + _offsets(window) * dilation
    inside = ((there >= 0) & (there < torch.tensor(grid))).all(-1)
    steps = torch.tensor([math.prod(grid[axis + 1 :]) for axis in range(len(grid))])
    return torch.where(inside, (there * steps).sum(-1), math.prod(grid)).flatten()
