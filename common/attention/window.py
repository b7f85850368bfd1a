"""Self-attention inside windows that tile a feature map, in place or shifted by half a window."""

import math
from typing import Self

import torch
from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.heads import Heads, look
from common.attention.relative_position import RelativeBias
from common.attention.self_attention import most_heads
from common.attention.spatial import blank
from common.attention.windows import merge, partition, seen_together

SIDE: dict[int, int] = {2: 7, 3: 4}
"""Side of a window by number of axes; 7 in two dimensions as published."""


class WindowAttention(AttentionLayer):
    """Every place looks at the places of its own window, with a learnt bias for every offset (W-MSA, SW-MSA).

    With a shift the map is rolled first, so that the windows of two layers in a row overlap; nothing looks across the
    edge that the roll joined. Windows that reach over the end are padded, and nothing looks at padding. Along an axis
    that one window covers there is no shift.

    Shapes: features [B, C, *S] -> mixed [B, C, *S], maps [B, W, heads, n, n] with rows that sum to one.
    Source: Liu et al. 2021, "Swin Transformer", section 3.2, eq. 3 and 4.
    """

    def __init__(self, channels: int, window: Grid, heads: int = 4, shift: Grid | None = None) -> None:
        super().__init__()
        self.window = window
        self.shift = shift or (0,) * len(window)
        self.heads = Heads(channels, heads)
        self.bias = RelativeBias(window, heads)
        self.maps = nn.Softmax(dim=-1)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with windows of 7 (4 in three dimensions), or less where the grid is smaller."""
        return cls(channels, fitting(grid), most_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map of all windows."""
        shift = self._shift(grid)
        heads = self.heads.heads
        return (AttentionSite("", "window", "maps", grid=grid, heads=heads, window=self.window, shift=shift),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix inside the windows and give the map."""
        grid, axes = tuple(features.shape[2:]), tuple(range(1, features.ndim - 1))
        shift = self._shift(grid)
        back = tuple(-step for step in shift)
        last = torch.roll(blank(features, mask).movedim(1, -1), back, axes)
        seen = seen_together(grid, self.window, shift).to(features.device)[None, :, None]
        real = None if mask is None else partition(torch.roll(mask, back, axes)[..., None].float(), self.window)

        def close(scores: Tensor) -> Tensor:
            biased: Tensor = self.bias(scores)
            if real is not None:  # finite, so that a window without anything real still has rows that sum to one
                hidden = real.squeeze(-1)[:, :, None, None] == 0
                biased = biased.masked_fill(hidden, torch.finfo(scores.dtype).min)
            return biased.masked_fill(~seen, -math.inf)

        mixed, maps = look(self.heads, self.maps, partition(last, self.window), close)
        return torch.roll(merge(mixed, grid, self.window), shift, axes).movedim(-1, 1).contiguous(), maps

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix inside the windows."""
        return self.attend(features, mask)[0]

    def _shift(self, grid: Grid) -> Grid:
        return tuple(step if side > room else 0 for step, side, room in zip(self.shift, grid, self.window, strict=True))


class ShiftedWindowAttention(WindowAttention):
    """Windows shifted by half their side; everything else as `WindowAttention`.

    Source: Liu et al. 2021, "Swin Transformer", section 3.2, eq. 3 (SW-MSA) and figure 4 (cyclic shift).
    """

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with half windows as shift."""
        window = fitting(grid, 2)
        return cls(channels, window, most_heads(channels), tuple(side // 2 for side in window))


def fitting(grid: Grid, least: int = 1) -> Grid:
    """Give the published window, or one that the grid holds `least` times along each axis."""
    return tuple(max(1, min(SIDE[len(grid)], side // least)) for side in grid)
