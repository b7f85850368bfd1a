"""Multi-head self-attention: fused for training, with maps when somebody wants to see them."""

import math
from typing import ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.errors import ConfigError


class SelfAttention(AttentionLayer):
    """Every token looks at every token of the same image.

    With `explicit` the map passes through `maps`, whose output is the attention tensor; without it the map never exists
    and the fused kernel runs. Both give the same result up to rounding.

    Shapes: tokens [B, N, D] -> mixed [B, N, D], maps [B, heads, N, N] with rows that sum to one.
    Source: Vaswani et al. 2017, "Attention Is All You Need", eq. 1.
    """

    takes: ClassVar[Inputs] = "tokens"
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    class_token: ClassVar[bool] = True

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"{heads} heads do not divide the token dimension {dim}. Take a multiple of {heads}.")
        self.heads = heads
        self.explicit = False
        self.qkv = nn.Linear(dim, 3 * dim)
        self.maps = nn.Softmax(dim=-1)
        self.proj = nn.Linear(dim, dim)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with four heads, or the most below that divide the dimension."""
        return cls(channels, most_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map."""
        return (AttentionSite("", "self-attention", "maps", grid=grid, cls=cls, heads=self.heads),)

    def attend(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix tokens by their similarity and say how much each looked at each."""
        query, key, value = self._split(tokens)
        scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-2, -1)
        maps: Tensor = self.maps(hide(scores, mask))
        return self._join(maps @ value), maps

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix tokens by their similarity."""
        if self.explicit:
            return self.attend(tokens, mask)[0]
        seen = None if mask is None else mask[:, None, None]
        return self._join(F.scaled_dot_product_attention(*self._split(tokens), attn_mask=seen))

    def _split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, count, dim = tokens.shape
        parts = self.qkv(tokens).view(batch, count, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def _join(self, heads: Tensor) -> Tensor:
        mixed: Tensor = self.proj(heads.transpose(1, 2).flatten(2))
        return mixed


def hide(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Let no query look at what is masked out. Shapes: scores [B, heads, N, M], mask bool [B, M] or None."""
    return scores if mask is None else scores.masked_fill(~mask[:, None, None], -math.inf)


def most_heads(dim: int, heads: int = 4) -> int:
    """Give the most heads, `heads` at most, that divide a dimension."""
    return next(count for count in range(min(heads, dim), 0, -1) if dim % count == 0)
