"""Axial attention that learns how far to trust what offsets say."""

from typing import Self

from common.attention.axial import AxialAttention
from common.attention.axis import halved_heads
from common.attention.base import Grid


class GatedAxialAttention(AxialAttention):
    """Axial attention with four learnt factors per axis: of both offset scores, the values and the mixed offsets.

    Where few images cannot teach the offsets, the factors of their terms stay small. The published code keeps the
    factors fixed at first; here they learn from the start.

    Shapes: features [B, C, *S] -> mixed [B, C, *S], one map [B, L, heads, n, n] per axis, rows sum to one.
    Source: Valanarasu et al. 2021, "Medical Transformer: Gated Axial-Attention for Medical Image Segmentation", eq. 4.
    """

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with gates and as many heads as axial attention takes."""
        return cls(channels, grid, halved_heads(channels), gated=True)
