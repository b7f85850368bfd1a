"""What layers of multi-head attention share: projections to heads and back, scores, and what may be looked at."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.errors import ConfigError


class Heads(nn.Module):
    """Queries, keys and values of every head from the same tokens, and the way back.

    Axes between the batch and the tokens (windows, lines) stay where they are, so that the batch is always first.

    Shapes: tokens [B, *, n, D]; each of query, key and value [B, *, heads, n, D / heads].
    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"{heads} heads do not divide the token dimension {dim}. Take a multiple of {heads}.")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give query, key and value."""
        parts = self.qkv(tokens)
        parts = parts.view(*parts.shape[:-1], 3, self.heads, -1).transpose(-4, -2)
        query, key, value = parts.unbind(-3)
        return query, key, value

    def join(self, mixed: Tensor) -> Tensor:
        """Bring the heads together and project. Shapes: [B, *, heads, n, d] -> [B, *, n, D]."""
        joined: Tensor = self.proj(mixed.transpose(-3, -2).flatten(-2))
        return joined


def look(
    heads: Heads, maps: nn.Module, tokens: Tensor, change: Callable[[Tensor], Tensor] = lambda scores: scores
) -> tuple[Tensor, Tensor]:
    """Attend: scores, what `change` makes of them, the map that `maps` makes of those, the mixed values.

    Shapes: tokens [B, *, n, D] -> mixed [B, *, n, D], map [B, *, heads, n, n].
    """
    query, key, value = heads.split(tokens)
    scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-2, -1)
    found: Tensor = maps(change(scores))
    return heads.join(found @ value), found


def within(pattern: Tensor, mask: Tensor | None) -> Tensor:
    """Join a pattern and a mask. A query that the mask leaves nothing looks at all that is real: it is masked itself.

    Shapes: pattern bool [N, N], mask bool [B, N] or None -> bool [1 or B, 1, N, N].
    """
    if mask is None:
        return pattern[None, None]
    real = mask[:, None, None]
    both = pattern & real
    return torch.where(both.any(-1, keepdim=True), both, real)
