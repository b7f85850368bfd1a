"""Non-local block: every position of a feature map looks at every other."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.self_attention import hide
from common.attention.spatial import CONVOLUTIONS, Norm, blank, one_group, shrink_mask


class NonLocal(AttentionLayer):
    """Add to each position the values of all positions, weighted by the softmax of theta(x_i) . phi(x_j).

    With `subsample` the keys and values are the greatest of each 2 x 2 (x 2) cell, and the map is no longer square. The
    keys have no bias, as a softmax over the keys cannot feel one; `key_bias` keeps it for published weights. With
    `explicit` the map passes through `maps`, whose output is the attention tensor; without it the fused kernel runs.

    Shapes: features [B, C, *S] -> [B, C, *S], map [B, 1, N, M], N = prod(S), M = N or prod(S // 2).
    Source: Wang et al. 2018, "Non-local Neural Networks", eq. 1, 4 (embedded Gaussian) and 6 (z = W y + x).
    """

    def __init__(
        self,
        channels: int,
        inner: int | None = None,
        dims: int = 2,
        subsample: bool = False,
        norm: Norm = one_group,
        key_bias: bool = False,
    ) -> None:
        super().__init__()
        inner = inner or max(1, channels // 2)
        conv = CONVOLUTIONS[dims]
        self.subsample = subsample
        self.explicit = False
        self.theta = conv(channels, inner, 1)
        self.phi = conv(channels, inner, 1, bias=key_bias)
        self.g = conv(channels, inner, 1)
        self.maps = nn.Softmax(dim=-1)
        self.out = nn.Sequential(conv(inner, channels, 1), norm(channels))

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer for so many channels, every position a key."""
        return cls(channels, dims=len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map; with fewer keys than positions it is a cross-attention."""
        if not self.subsample:
            return (AttentionSite("", "self-attention", "maps", grid=grid, heads=1),)
        keys = tuple(max(1, side // 2) for side in grid)
        return (AttentionSite("", "cross-attention", "maps", grid=grid, keys=keys, heads=1),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Add what all positions say and give who looked at whom."""
        features = blank(features, mask)
        query, key, value, seen = self._split(features, mask)
        maps: Tensor = self.maps(hide(query @ key.transpose(-2, -1), seen))
        return self._join(maps @ value, features), maps

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Add what all positions say."""
        if self.explicit:
            return self.attend(features, mask)[0]
        features = blank(features, mask)
        query, key, value, seen = self._split(features, mask)
        allowed = None if seen is None else seen[:, None, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=1.0)
        return self._join(mixed, features)

    def _split(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Give query, key, value [B, 1, N or M, inner] and which keys are real [B, M]."""
        key, value = self.phi(features), self.g(features)
        seen = mask
        if self.subsample:
            seen = shrink_mask(mask, _halved(features))
            key, value = (_greatest(part, mask, seen) for part in (key, value))
        query, key, value = (part.flatten(2).transpose(1, 2)[:, None] for part in (self.theta(features), key, value))
        return query, key, value, None if seen is None else seen.flatten(1)

    def _join(self, mixed: Tensor, features: Tensor) -> Tensor:
        # Row by row in memory: per-sample gradients of a convolution are wrong on a transposed one.
        images = mixed[:, 0].transpose(1, 2).contiguous()
        added: Tensor = self.out(images.view(*images.shape[:2], *features.shape[2:]))
        return added + features


def _halved(features: Tensor) -> Tensor:
    """Give the greatest of each cell of two positions per axis; an axis of one position stays."""
    cell = tuple(min(2, side) for side in features.shape[2:])
    return F.max_pool2d(features, cell) if features.ndim == 4 else F.max_pool3d(features, cell)


def _greatest(features: Tensor, mask: Tensor | None, seen: Tensor | None) -> Tensor:
    """Give the greatest real value of each cell; a cell without any gives 0."""
    if mask is None or seen is None:
        return _halved(features)
    lowest = torch.finfo(features.dtype).min
    return _halved(features.masked_fill(~mask[:, None], lowest)).masked_fill(~seen[:, None], 0)
