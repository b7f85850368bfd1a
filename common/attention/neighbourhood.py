"""Self-attention to the places around one's own, close together or some steps apart."""

import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.heads import Heads
from common.attention.self_attention import most_heads
from common.attention.spatial import blank

SIDE: dict[int, int] = {2: 7, 3: 3}
"""Side of a neighbourhood by number of axes; 7 in two dimensions as published."""


class OffsetBias(nn.Module):
    """Adds a learnt number for every head and offset. Shapes: scores [B, heads, N, K] -> the same."""

    def __init__(self, heads: int, offsets: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(heads, 1, offsets))

    def forward(self, scores: Tensor) -> Tensor:
        """Add."""
        return scores + self.table


class Neighbourhood(AttentionLayer):
    """Every place looks at the places around it, its own among them, with a learnt bias for every offset.

    A neighbourhood keeps its place in its middle: at the edge of the map what lies outside has the weight zero. (NATTEN
    moves the neighbourhood inwards instead, so that an offset means another thing at the edge.) With a dilation above
    one the places lie that many steps apart. Cost grows with N · K, not with N².

    Shapes: features [B, C, *S] -> mixed [B, C, *S], maps [B, heads, N, K] with rows that sum to one.
    Source: Ramachandran et al. 2019, "Stand-Alone Self-Attention in Vision Models", eq. 1 and 2; Hassani et al. 2023,
    "Neighborhood Attention Transformer", eq. 1 to 3, for the bias; Hassani and Shi 2022 for the dilation.
    """

    def __init__(self, channels: int, window: Grid, heads: int = 4, dilation: int = 1) -> None:
        super().__init__()
        self.window, self.dilation = window, dilation
        self.heads = Heads(channels, heads)
        self.bias = OffsetBias(heads, math.prod(window))
        self.maps = nn.Softmax(dim=-1)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with neighbourhoods of 7 (3 in three dimensions), or the next odd side that the grid holds."""
        return cls(channels, tuple(odd(min(SIDE[len(grid)], side)) for side in grid), most_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map."""
        heads, window = self.heads.heads, self.window
        site = AttentionSite("", "neighbourhood", "maps", grid=grid, heads=heads, window=window, dilation=self.dilation)
        return (site,)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix what lies around each place and give the map."""
        grid = tuple(features.shape[2:])
        query, key, value = self.heads.split(blank(features, mask).flatten(2).transpose(1, 2))
        around = self._around(key, grid)
        scores = self.bias(torch.einsum("bhnd,bhnkd->bhnk", query / math.sqrt(query.shape[-1]), around))
        inside = self._around(features.new_ones(1, 1, math.prod(grid), 1), grid).squeeze(-1) > 0
        if mask is not None:  # finite, so that a place without anything real around it still has a row that sums to one
            real = self._around(mask.flatten(1)[:, None, :, None].to(features.dtype), grid).squeeze(-1) > 0
            scores = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
        maps: Tensor = self.maps(scores.masked_fill(~inside, -math.inf))
        mixed = torch.einsum("bhnk,bhnkd->bhnd", maps, self._around(value, grid))
        return self.heads.join(mixed).transpose(1, 2).contiguous().view(features.shape), maps

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix what lies around each place."""
        return self.attend(features, mask)[0]

    def _around(self, tokens: Tensor, grid: Grid) -> Tensor:
        return around(tokens, grid, self.window, self.dilation)


class DilatedNeighbourhood(Neighbourhood):
    """Three places a side, as far apart as the grid allows; everything else as `Neighbourhood`.

    Source: Hassani and Shi 2022, "Dilated Neighborhood Attention Transformer", section 3.
    """

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with the greatest dilation whose neighbourhood the grid holds."""
        window = tuple(odd(min(3, side)) for side in grid)
        return cls(channels, window, most_heads(channels), max(1, min(grid) // 3))


def odd(side: int) -> int:
    """Give the greatest odd number up to `side`, at least 1."""
    return max(1, side - 1 + side % 2)


def around(tokens: Tensor, grid: Grid, window: Grid, dilation: int = 1) -> Tensor:
    """Gather the tokens around each place, row by row; zeros where the map has ended.

    Shapes: tokens [B, heads, N, d] -> [B, heads, N, K, d], N = product of `grid`, K = product of `window` (odd sides).
    """
    reach = [dilation * (side // 2) for side in window]
    planes = tokens.transpose(-2, -1).reshape(*tokens.shape[:2], -1, *grid)
    padded = F.pad(planes, [step for most in reversed(reach) for step in (most, most)])
    steps = torch.cartesian_prod(*(torch.arange(side) for side in window)).reshape(-1, len(window)) * dilation
    parts = []
    for offset in steps.tolist():
        part = padded
        for axis, (start, side) in enumerate(zip(offset, grid, strict=True)):
            part = part.narrow(3 + axis, start, side)
        parts.append(part)
    return torch.stack(parts, 3).flatten(4).permute(0, 1, 4, 3, 2)
