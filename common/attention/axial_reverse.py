"""Axial reverse attention: lines of the features exchange what they hold, then what is already found is erased."""

from collections.abc import Sequence
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn

from common.attention.axis import Gate
from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.attention.reverse_attention import ReverseAttention
from common.attention.spatial import CONVOLUTIONS, blank


class SlicesLook(nn.Module):
    """Add to each slice across one axis what all slices hold, each in (0, 1) by their likeness, times a learnt factor.

    All positions of a slice share one answer, and a sigmoid stands for the softmax: the matrix of gates [B, n, n] has
    no rows that sum to one, and is no attention site.

    Shapes: features [B, C, *S] -> [B, C, *S].
    Source: Lou et al. 2022, "CaraNet: Context Axial Reverse Attention Network".
    """

    def __init__(self, channels: int, axis: int, dims: int = 2, reduction: int = 8) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        conv = CONVOLUTIONS[dims]
        self.axis = axis + 2
        self.query, self.key = conv(channels, inner, 1, bias=False), conv(channels, inner, 1, bias=False)
        self.value = conv(channels, channels, 1, bias=False)
        self.gate = nn.Sigmoid()
        self.scale = Gate(0.0)

    def forward(self, features: Tensor) -> Tensor:
        """Add what the slices hold."""
        # Slices last: [B, c, positions of a slice, n]
        query, key, value = (
            part(features).movedim(self.axis, -1).flatten(2, -2) for part in (self.query, self.key, self.value)
        )
        gates = self.gate(torch.einsum("bcln,bclm->bnm", query, key))
        found = torch.einsum("bnm,bclm->bcln", gates, value)
        moved = features.movedim(self.axis, -1)
        return features + cast(Tensor, self.scale(found.reshape(moved.shape).movedim(-1, self.axis).contiguous()))


class AxialKernel(nn.Module):
    """Two convolutions, then the slices across each of `axes`, in this order.

    Shapes: features [B, C, *S], mask bool [B, *S] or None -> [B, C, *S].
    Source: as `SlicesLook`. The published code cuts square maps along the last axis both times: `axes=(1, 1)`.
    """

    def __init__(self, channels: int, dims: int = 2, axes: Sequence[int] | None = None) -> None:
        super().__init__()
        conv = CONVOLUTIONS[dims]
        self.start = nn.Sequential(
            conv(channels, channels, 1, bias=False), conv(channels, channels, 3, padding=1, bias=False)
        )
        self.looks = nn.ModuleList(SlicesLook(channels, axis, dims) for axis in axes or range(dims))

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Exchange along every axis; what is masked out counts as zero."""
        features = blank(self.start(blank(features, mask)), mask)
        for look in self.looks:
            features = blank(look(features), mask)
        return features


class AxialReverseAttention(AttentionLayer):
    """Exchange along the axes, then keep what the deeper level has not yet found.

    Shapes: features [B, C, *S], gating [B, G, *s] -> gated [B, C, *S], gates [B, 1, *S].
    Source: Lou et al. 2022, "CaraNet: Context Axial Reverse Attention Network for Segmentation of Small Medical
    Objects": AA(x) (1 - sigmoid(up(p))).
    """

    takes: ClassVar[Inputs] = "skip"

    def __init__(self, channels: int, gating: int, dims: int = 2, axes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.axial = AxialKernel(channels, dims, axes)
        self.reverse = ReverseAttention(gating, dims)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer for so many channels and `other` channels of deeper features."""
        return cls(channels, other or channels, len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One gate per position."""
        return (AttentionSite("", "attention-gate", "reverse.gate", grid=grid),)

    def attend(  # type: ignore[override]
        self, features: Tensor, gating: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Exchange, erase what is predicted, and give the gates too."""
        return self.reverse.attend(self.axial(features, mask), gating, mask)

    def forward(self, features: Tensor, gating: Tensor, mask: Tensor | None = None) -> Tensor:
        """Exchange and erase what is predicted."""
        return self.attend(features, gating, mask)[0]
