"""Self-attention whose weights are the nearest probabilities to the scores, most of them exactly zero."""

from typing import Self

import torch
from torch import Tensor, nn

from common.attention.base import Grid
from common.attention.mapped import MappedAttention
from common.attention.self_attention import most_heads


class Sparsemax(nn.Module):
    """Project each row onto the simplex: p = max(z - τ, 0) with τ such that the row sums to one.

    Shapes: scores [..., N], minus infinity for what may get nothing -> weights [..., N].
    Source: Martins & Astudillo 2016, "From Softmax to Sparsemax", eq. 2 and algorithm 1.
    """

    def forward(self, scores: Tensor) -> Tensor:
        """Project."""
        # No weight exceeds one, so what lies 1 or more below the largest score gets nothing: -2 is far enough
        near = (scores - scores.detach().amax(-1, keepdim=True)).clamp_min(-2)
        ordered = near.detach().sort(-1, descending=True).values
        count = torch.arange(1, near.shape[-1] + 1, device=near.device, dtype=near.dtype)
        excess = (ordered.cumsum(-1) - 1) / count
        size = (ordered > excess).sum(-1, keepdim=True)
        kept = near.detach() > excess.gather(-1, size - 1)
        threshold = ((near * kept).sum(-1, keepdim=True) - 1) / kept.sum(-1, keepdim=True)
        return (near - threshold).clamp_min(0)


class SparsemaxAttention(MappedAttention):
    """Every token looks at as few tokens as its scores allow.

    Shapes: tokens [B, N, D] -> mixed [B, N, D], maps [B, heads, N, N], rows sum to one, exact zeros among them.
    Source: Martins & Astudillo 2016, "From Softmax to Sparsemax", eq. 2.
    """

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with four heads, or the most below that divide the dimension."""
        return cls(channels, most_heads(channels), Sparsemax())
