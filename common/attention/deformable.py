"""Deformable neighbourhood: every place looks at a few points around it, and learns where they lie."""

import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.neighbourhood import odd
from common.attention.self_attention import most_heads
from common.attention.spatial import blank
from common.errors import ConfigError

SIDE = 3
LEAST = 1e-4
"""Less of something real than this in what a point reads is rounding of its place."""


class DeformableNeighbourhood(AttentionLayer):
    """Each query looks at K points per head, at learnt offsets around it, values read between places by interpolation.

    A_hk = softmax_k(W_h z), output = Σ_h W_o Σ_k A_hk V(p + Δp_hk), offsets Δp = nominal + U z: both follow from the
    query alone. At first the points are the `window` around the query, in places, and all weigh the same. A point
    outside the map, or where nothing is real, has the weight zero; between the real and the unreal it reads the real
    part alone. A query all of whose points are unreal spreads its row evenly over them and reads zeros.

    Statistics of offsets (`offset_prof`, `received_map`) take each point at its nominal offset: how much weight the
    k-th point has, not where it has wandered.

    Shapes: features [B, C, *S] -> mixed [B, C, *S], maps [B, heads, N, K] with rows that sum to one.
    Source: Zhu et al. 2021, "Deformable DETR", eq. 2 on one level; Xia et al. 2022 for offsets around a grid.
    """

    def __init__(self, channels: int, window: Grid, heads: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ConfigError(f"{heads} heads do not divide {channels} channels. Take a multiple of {heads}.")
        self.window, self.heads = window, heads
        points, axes = math.prod(window), len(window)
        self.value = nn.Linear(channels, channels)
        self.offsets = nn.Linear(channels, heads * points * axes)
        self.weights = nn.Linear(channels, heads * points)
        self.maps = nn.Softmax(dim=-1)
        self.proj = nn.Linear(channels, channels)
        steps = torch.cartesian_prod(*(torch.arange(side) - side // 2 for side in window)).reshape(points, axes)
        with torch.no_grad():
            self.offsets.weight.zero_()
            self.offsets.bias.copy_(steps.expand(heads, points, axes).flatten())
            self.weights.weight.zero_()
            self.weights.bias.zero_()

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with three points along each axis, or one where the grid is narrower."""
        return cls(channels, tuple(odd(min(SIDE, side)) for side in grid), most_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map."""
        return (AttentionSite("", "neighbourhood", "maps", grid=grid, heads=self.heads, window=self.window),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix what lies at each place's points and give their weights."""
        grid = tuple(features.shape[2:])
        tokens = blank(features, mask).flatten(2).transpose(1, 2)
        points = self._points(tokens, grid)
        values = blank(self.value(tokens).transpose(1, 2).reshape(features.shape), mask)
        real = features.new_ones(len(features), 1, *grid) if mask is None else mask[:, None].to(features.dtype)
        scores = self.weights(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
        seen = torch.stack([read(real, place)[:, 0] for place in points.unbind(1)], 1) > LEAST
        # finite, so that a place without anything real around it still has a row that sums to one
        maps: Tensor = self.maps(scores.masked_fill(~seen, torch.finfo(scores.dtype).min))
        parts = values.chunk(self.heads, 1)
        mixed = [
            torch.einsum("bnk,bcnk->bnc", weight, read(part, place))
            for weight, part, place in zip(maps.unbind(1), parts, points.unbind(1), strict=True)
        ]
        joined = self.proj(torch.cat(mixed, 2))
        return joined.transpose(1, 2).contiguous().view(features.shape), maps

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix what lies at each place's points."""
        return self.attend(features, mask)[0]

    def _points(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Give where each query's points lie, in places from the first. [B, heads, N, K, axes]."""
        axes = [torch.arange(side, device=tokens.device, dtype=tokens.dtype) for side in grid]
        home = torch.cartesian_prod(*axes).reshape(-1, len(grid))
        moved: Tensor = self.offsets(tokens).unflatten(2, (self.heads, -1, len(grid))).transpose(1, 2)
        return home[:, None] + moved


def read(features: Tensor, points: Tensor) -> Tensor:
    """Read features between places, zeros outside. Shapes: [B, C, *S], points [B, N, K, axes] -> [B, C, N, K]."""
    sides = torch.tensor(features.shape[2:], device=points.device, dtype=points.dtype)
    scaled = ((2 * points + 1) / sides - 1).flip(-1)  # grid_sample wants the last axis first
    if features.ndim == 5:
        scaled = scaled[:, None]
    found: Tensor = F.grid_sample(features, scaled, align_corners=False)
    laid: Tensor = found.reshape(len(features), features.shape[1], *points.shape[1:3])
    return laid
