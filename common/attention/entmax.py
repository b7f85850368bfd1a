"""Self-attention between softmax and sparsemax: smooth weights, some of them exactly zero."""

from typing import Self

import torch
from torch import Tensor, nn

from common.attention.base import Grid
from common.attention.mapped import MappedAttention
from common.attention.self_attention import most_heads


class Entmax15(nn.Module):
    """Weigh by p = max(z / 2 - τ, 0)² with τ such that the row sums to one (α = 1.5), exactly, by sorting.

    For a support of k scores x = z / 2 with mean m, τ = m - √((1 - Σ(x - m)²) / k); the support is the largest for
    which its least score is still above τ.

    Shapes: scores [..., N], minus infinity for what may get nothing -> weights [..., N].
    Source: Peters et al. 2019, "Sparse Sequence-to-Sequence Models", eq. 10 and algorithm 2.
    """

    def forward(self, scores: Tensor) -> Tensor:
        """Weigh."""
        # No weight exceeds one, so what lies 1 or more below the largest score, halved, gets nothing: -2 is far enough
        near = ((scores - scores.detach().amax(-1, keepdim=True)) / 2).clamp_min(-2)
        ordered = near.detach().sort(-1, descending=True).values
        count = torch.arange(1, near.shape[-1] + 1, device=near.device, dtype=near.dtype)
        mean = ordered.cumsum(-1) / count
        spread = ordered.square().cumsum(-1) - count * mean.square()
        threshold = mean - ((1 - spread) / count).clamp_min(0).sqrt()
        size = (threshold < ordered).sum(-1, keepdim=True)
        kept = near.detach() > threshold.gather(-1, size - 1)
        return (near - self._threshold(near, kept)).clamp_min(0).square()

    @staticmethod
    def _threshold(near: Tensor, kept: Tensor) -> Tensor:
        """Give τ of a known support, so that gradients pass through it."""
        count = kept.sum(-1, keepdim=True)
        mean = (near * kept).sum(-1, keepdim=True) / count
        spread = ((near - mean).square() * kept).sum(-1, keepdim=True)
        return mean - ((1 - spread) / count).clamp_min(torch.finfo(near.dtype).tiny).sqrt()


class EntmaxAttention(MappedAttention):
    """Every token looks at few tokens, with weights that fall off smoothly.

    Shapes: tokens [B, N, D] -> mixed [B, N, D], maps [B, heads, N, N], rows sum to one, exact zeros among them.
    Source: Peters et al. 2019, "Sparse Sequence-to-Sequence Models", eq. 10.
    """

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with four heads, or the most below that divide the dimension."""
        return cls(channels, most_heads(channels), Entmax15())
