"""Self-attention to averages of neighbouring tokens."""

import math
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.attention.self_attention import hide, most_heads
from common.attention.spatial import Norm, one_group
from common.errors import ConfigError

RUN = 4


class PooledKeys(AttentionLayer):
    """Every token looks at runs of tokens, each run averaged and normalised (E-MHSA): `run` times fewer keys.

    A run is that many tokens in order; the last may be shorter. Masked tokens do not count in a run's average.

    Shapes: tokens [B, N, D] -> mixed [B, N, D], maps [B, heads, N, M] with rows that sum to one, M = ceil(N / run).
    Source: Manzari et al. 2023, "MedViT: A Robust Vision Transformer for Generalized Medical Image Classification", the
    efficient multi-head self-attention.
    """

    takes: ClassVar[Inputs] = "tokens"
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __init__(self, dim: int, heads: int = 4, run: int = RUN, norm: Norm = one_group) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"{heads} heads do not divide the token dimension {dim}. Take a multiple of {heads}.")
        self.explicit = False
        self.heads, self.run = heads, run
        self.query = nn.Linear(dim, dim)
        self.norm = norm(dim)
        # Keys and values in one: a bias of keys alone would move all scores of a row alike, and learn nothing
        self.key_value = nn.Linear(dim, 2 * dim)
        self.maps = nn.Softmax(dim=-1)
        self.proj = nn.Linear(dim, dim)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Average four tokens, or half of them where there are few."""
        return cls(channels, most_heads(channels), max(1, min(RUN, math.prod(grid) // 2)))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map, of the runs."""
        runs = -(-math.prod(grid) // self.run)
        return (AttentionSite("", "cross-attention", "maps", grid=grid, heads=self.heads, keys=(runs,)),)

    def attend(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix the runs and give the map."""
        query, key, value, real = self._split(tokens, mask)
        maps: Tensor = self.maps(hide(query / math.sqrt(query.shape[-1]) @ key.transpose(-2, -1), real))
        return self._join(maps @ value), maps

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix the runs."""
        if self.explicit:
            return self.attend(tokens, mask)[0]
        query, key, value, real = self._split(tokens, mask)
        seen = None if real is None else real[:, None, None]
        return self._join(F.scaled_dot_product_attention(query, key, value, attn_mask=seen))

    def _split(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        means, real = averages(tokens, mask, self.run)
        pooled = self.norm(means.transpose(1, 2)).transpose(1, 2)
        key, value = self.key_value(pooled).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        query = self.query(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return query, key, value, None if mask is None else real

    def _join(self, mixed: Tensor) -> Tensor:
        joined: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return joined


def averages(tokens: Tensor, mask: Tensor | None, run: int) -> tuple[Tensor, Tensor]:
    """Average the real tokens of each run; a run of none gives zero. Shapes: [B, N, D] -> [B, M, D], bool [B, M]."""
    missing = -tokens.shape[1] % run
    runs = (tokens.shape[0], -1, run)
    real = tokens.new_ones(tokens.shape[:2]) if mask is None else mask.to(tokens.dtype)
    kept = tokens if mask is None else tokens.masked_fill(~mask[..., None], 0)
    total = F.pad(kept, (0, 0, 0, missing)).reshape(*runs, tokens.shape[2]).sum(2)
    count = F.pad(real, (0, missing)).reshape(runs).sum(2)
    return total / count.clamp_min(1)[..., None], torch.gt(count, 0)
