"""Self-attention to the places that share a line with one's own."""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.axis import Gate
from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.heads import within
from common.attention.spatial import CONVOLUTIONS, blank


class CrissCross(AttentionLayer):
    """Each place looks along its row and its column, its own place counted once, and adds γ times what it found.

    Two layers in a row reach the whole map. γ starts at zero. With `explicit` the map of all pairs is made, zero away
    from the cross, and passes through `maps`; without it only scores on the cross exist.

    Shapes: features [B, C, *S] -> [B, C, *S], maps [B, 1, N, N] with rows that sum to one, N = product of S.
    Source: Huang et al. 2019, "CCNet: Criss-Cross Attention for Semantic Segmentation", eq. 1 and 2.
    """

    def __init__(self, channels: int, dims: int = 2, reduction: int = 8) -> None:
        super().__init__()
        self.explicit = False
        self.inner = max(1, channels // reduction)
        # One convolution for all three: a bias of keys alone would move all scores of a row alike, and learn nothing
        self.qkv = CONVOLUTIONS[dims](channels, 2 * self.inner + channels, 1)
        self.maps = nn.Softmax(dim=-1)
        self.scale = Gate(0.0)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with queries of an eighth of the channels, as published."""
        return cls(channels, len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map."""
        return (AttentionSite("", "self-attention", "maps", grid=grid, heads=1),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Add what the cross holds, through the map of all pairs, and give that map."""
        query, key, value = (part.flatten(2).transpose(1, 2)[:, None] for part in self._split(features, mask))
        pattern = on_the_cross(tuple(features.shape[2:])).to(features.device)
        seen = within(pattern, None if mask is None else mask.flatten(1))
        maps: Tensor = self.maps((query @ key.transpose(-2, -1)).masked_fill(~seen, -math.inf))
        return features + self.scale((maps @ value)[:, 0].transpose(1, 2).reshape(features.shape)), maps

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Add what the cross holds."""
        if self.explicit:
            return self.attend(features, mask)[0]
        query, key, value = self._split(features, mask)
        found: Tensor = self.scale(mix(F.softmax(cross_scores(query, key, mask), -1), value))
        return features + found

    def _split(self, features: Tensor, mask: Tensor | None) -> Sequence[Tensor]:
        parts: Sequence[Tensor] = self.qkv(blank(features, mask)).split([self.inner, self.inner, features.shape[1]], 1)
        return parts


def on_the_cross(grid: Grid) -> Tensor:
    """Say which places differ along one axis at most. Shapes: bool [N, N]."""
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid)).reshape(-1, len(grid))
    return (places[:, None] != places[None]).sum(-1) <= 1


def cross_scores(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """Score each place's lines, one after the other; its own place counts on the last line alone.

    Shapes: query and key [B, c, *S], mask bool [B, *S] or None -> scores [B, *S, K], K = sum of S.
    """
    grid, lines = query.shape[2:], []
    for axis, side in enumerate(grid):
        at = axis + 2
        across, along = query.movedim(at, -1), key.movedim(at, -1)
        scores = torch.einsum("bc...n,bc...m->b...nm", across, along)
        if axis < len(grid) - 1:
            scores = scores.masked_fill(torch.eye(side, dtype=torch.bool, device=scores.device), -math.inf)
        if mask is not None:  # finite, so that a cross without anything real still has a row that sums to one
            hidden = ~mask.movedim(1 + axis, -1).unsqueeze(-2)
            scores = scores.masked_fill(hidden & scores.isfinite(), torch.finfo(scores.dtype).min)
        lines.append(scores.movedim(-2, 1 + axis))
    return torch.cat(lines, -1)


def mix(weights: Tensor, value: Tensor) -> Tensor:
    """Mix the values on each place's lines. Shapes: weights [B, *S, K], value [B, C, *S] -> [B, C, *S]."""
    grid, total = list(value.shape[2:]), torch.zeros_like(value)
    for axis, part in enumerate(torch.split(weights, grid, -1)):
        found = torch.einsum("b...nm,bc...m->bc...n", part.movedim(1 + axis, -2), value.movedim(2 + axis, -1))
        total = total + found.movedim(-1, 2 + axis)
    return total
