"""Cross-axis attention: what strips along one axis see asks what strips along another axis saw."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.self_attention import most_heads
from common.attention.spatial import CONVOLUTIONS, blank
from common.attention.transposed import HeadScale
from common.errors import ConfigError

KERNELS = (7, 11, 21)
"""Lengths of the strips, as published."""


class Strips(nn.Module):
    """Sum of depthwise convolutions of several lengths along one axis. Shapes: [B, C, *S] -> the same."""

    def __init__(self, channels: int, axis: int, dims: int, lengths: Sequence[int]) -> None:
        super().__init__()
        sizes: list[Any] = [along(axis, length, dims) for length in lengths]
        self.strips = nn.ModuleList(
            CONVOLUTIONS[dims](channels, channels, size, padding="same", groups=channels) for size in sizes
        )

    def forward(self, features: Tensor) -> Tensor:
        """Add what each strip sees."""
        return torch.stack([strip(features) for strip in self.strips]).sum(0)


class CrossAxisAttention(AttentionLayer):
    """Lines across an axis look at each other, queries from strips along it, keys and values from the next axis's.

    S_a = P Σ_k strip_ak(LN(x)): depthwise convolutions of several lengths along axis a, then a 1-convolution P. Laid
    out with one vector per head and place on axis a, and b the axis after a (after the last comes the first), the map
    is A_a = softmax(t unit(S_a) unit(S_b)ᵀ), unit(·) being the direction of a vector, and the answer is
    x + Σ_a P (A_a S_b + unit(S_a)). A map has the square of one side, not of the number of places. A line without
    anything real gets no attention.

    Shapes: features [B, C, *S] -> mixed [B, C, *S], per axis a map [B, heads, n, n], n the side along it, with rows
    that sum to one.
    Source: Shao et al. 2023, "MCANet: Medical Image Segmentation with Multi-Scale Cross-Axis Attention". That one P
    serves all, that scores are cosines and that queries are added is of the published code, which holds a factor t for
    each head and never uses it; here it learns, from 1. Three axes, each with the next, are ours.
    """

    def __init__(self, channels: int, dims: int = 2, heads: int = 4, kernels: Sequence[int] = KERNELS) -> None:
        super().__init__()
        if channels % heads:
            raise ConfigError(f"{heads} heads do not divide {channels} channels. Take a multiple of {heads}.")
        if any(kernel % 2 == 0 for kernel in kernels):
            raise ConfigError(f"strips of lengths {tuple(kernels)} have no middle. Allowed are odd lengths.")
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.strips = nn.ModuleList(Strips(channels, axis, dims, kernels) for axis in range(dims))
        self.proj = CONVOLUTIONS[dims](channels, channels, 1)
        self.scale = HeadScale(heads)
        self.maps = nn.ModuleList(nn.Softmax(dim=-1) for _ in range(dims))

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with the published strips, none longer than reaches over the grid from any place."""
        return cls(channels, len(grid), most_heads(channels), [min(kernel, 2 * max(grid) - 1) for kernel in KERNELS])

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map per axis; a key is a whole line across it, so the grid of keys has one place along the others."""
        keys = [along(axis, side, len(grid)) for axis, side in enumerate(grid)]
        return tuple(
            AttentionSite(f"axis{axis}", "cross-attention", f"maps.{axis}", grid=line, heads=self.heads, keys=line)
            for axis, line in enumerate(keys)
        )

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Let the lines across every axis look at each other, and give the maps."""
        seen = self._seen(features, mask)
        units = [F.normalize(lines(part, axis, self.heads), dim=-1) for axis, part in enumerate(seen)]
        # In one call: [B, heads, axes, C/h * N]
        scaled = self.scale(torch.stack([unit.flatten(2) for unit in units], 2)).unbind(2)
        mixed, found = [], []
        for axis, (unit, query, softmax) in enumerate(zip(units, scaled, self.maps, strict=True)):
            value = lines(seen[(axis + 1) % len(seen)], axis, self.heads)
            scores = query.view_as(unit) @ F.normalize(value, dim=-1).transpose(-2, -1)
            if mask is not None:  # finite, so that an image without anything real still has rows that sum to one
                real = mask.movedim(1 + axis, 1).flatten(2).any(2)[:, None, None]
                scores = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
            maps: Tensor = softmax(scores)
            mixed.append(places(maps @ value + unit, axis, features))
            found.append(maps)
        return features + torch.stack(self._project(mixed)).sum(0), *found

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let the lines across every axis look at each other."""
        return self.attend(features, mask)[0]

    def _seen(self, features: Tensor, mask: Tensor | None) -> list[Tensor]:
        """What the strips along each axis see; nothing where nothing is real, before and after."""
        normed = blank(self.norm(features.movedim(1, -1)).movedim(-1, 1), mask).contiguous()
        return [blank(part, mask) for part in self._project([strips(normed) for strips in self.strips])]

    def _project(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Project all in one call, laid end to end."""
        laid: Tensor = self.proj(torch.cat(list(parts), 2))
        return list(laid.chunk(len(parts), 2))


def along(axis: int, length: int, dims: int) -> Grid:
    """Give a size with so many places along one axis and one along the others."""
    return tuple(length if other == axis else 1 for other in range(dims))


def lines(features: Tensor, axis: int, heads: int) -> Tensor:
    """Lay features out as one vector per head and place on an axis. Shapes: [B, C, *S] -> [B, heads, n, C/h * N/n]."""
    return features.reshape(len(features), heads, -1, *features.shape[2:]).movedim(3 + axis, 2).flatten(3)


def places(vectors: Tensor, axis: int, like: Tensor) -> Tensor:
    """Undo `lines`. Shapes: [B, heads, n, C/h * N/n], like [B, C, *S] -> [B, C, *S]."""
    heads = vectors.shape[1]
    rest = [side for other, side in enumerate(like.shape[2:]) if other != axis]
    laid = vectors.reshape(*vectors.shape[:3], like.shape[1] // heads, *rest)
    return laid.movedim(2, 3 + axis).reshape(like.shape)
