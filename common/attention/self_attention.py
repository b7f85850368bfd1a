"""Multi-head self-attention: fused for training, with maps when somebody wants to see them."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import ConfigError


class SelfAttention(nn.Module):
    """Every token looks at every token of the same image.

    With `explicit` the map passes through `maps`, whose output is the attention tensor; without it the map never exists
    and the fused kernel runs. Both give the same result up to rounding.

    Shapes: tokens [B, N, D] -> mixed [B, N, D], maps [B, heads, N, N] with rows that sum to one.
    Source: Vaswani et al. 2017, "Attention Is All You Need", eq. 1.
    """

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"{heads} heads do not divide the token dimension {dim}. Take a multiple of {heads}.")
        self.heads = heads
        self.explicit = False
        self.qkv = nn.Linear(dim, 3 * dim)
        self.maps = nn.Softmax(dim=-1)
        self.proj = nn.Linear(dim, dim)

    def attend(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mix tokens by their similarity and say how much each looked at each."""
        query, key, value = self._split(tokens)
        maps: Tensor = self.maps(query / math.sqrt(query.shape[-1]) @ key.transpose(-2, -1))
        return self._join(maps @ value), maps

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix tokens by their similarity."""
        if self.explicit:
            return self.attend(tokens)[0]
        return self._join(F.scaled_dot_product_attention(*self._split(tokens)))

    def _split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, count, dim = tokens.shape
        parts = self.qkv(tokens).view(batch, count, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def _join(self, heads: Tensor) -> Tensor:
        mixed: Tensor = self.proj(heads.transpose(1, 2).flatten(2))
        return mixed
