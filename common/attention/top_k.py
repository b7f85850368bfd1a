"""Self-attention to the few most similar tokens."""

import math
from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import Grid
from common.attention.mapped import MappedAttention
from common.attention.self_attention import most_heads
from common.errors import ConfigError

KEPT = 8


class TopK(nn.Module):
    """Softmax over the `kept` largest scores of a row, zero elsewhere; equal scores at the edge are all kept.

    With `straight` the backward pass is that of softmax over the whole row, so that tokens that were left out may come
    back.

    Shapes: scores [..., N] -> weights [..., N], sum one.
    """

    def __init__(self, kept: int, straight: bool = False) -> None:
        super().__init__()
        if kept < 1:
            raise ConfigError(f"top-k attention was told to keep {kept} scores. Allowed is 1 or more; keep at least 1.")
        self.kept, self.straight = kept, straight

    def forward(self, scores: Tensor) -> Tensor:
        """Weigh."""
        least = scores.topk(min(self.kept, scores.shape[-1])).values[..., -1:]
        hard = F.softmax(scores.masked_fill(scores < least, -math.inf), -1)
        if not self.straight:
            return hard
        soft = F.softmax(scores, -1)
        return (soft - soft.detach()) + hard.detach()  # in this order what is zero stays exactly zero


class TopKAttention(MappedAttention):
    """Every token looks at the tokens with the greatest scores only.

    Shapes: tokens [B, N, D] -> mixed [B, N, D], maps [B, heads, N, N] with rows that sum to one, mostly zero.
    Source: Zhao et al. 2019, "Explicit Sparse Transformer: Concentrated Attention Through Explicit Selection", the
    masking of all but the k largest entries of each row; straight through: Bengio et al. 2013, "Estimating or
    Propagating Gradients Through Stochastic Neurons".
    """

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Keep the eight largest scores, or half of them where there are few."""
        return cls(channels, most_heads(channels), TopK(max(1, min(KEPT, math.prod(grid) // 2))))
