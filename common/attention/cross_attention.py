"""Cross-attention between modalities, with a gate that decides how much of the other one enters."""

import math
from typing import ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.attention.self_attention import hide, most_heads
from common.errors import ConfigError


class CrossAttention(AttentionLayer):
    """Every token looks at the context (another modality, a report, another scale) and takes what its gate lets in.

    y = x + g ⊙ W_o softmax(Q K^T / √d) V, g = sigmoid(W_g x) one per token and channel. A shut gate leaves the tokens
    as they were, so that a missing or useless modality does no harm. Keys have no bias, which the softmax would undo.

    Shapes: tokens [B, N, D], context [B, M, E] -> [B, N, D], maps [B, heads, N, M]; gates [B, N, D].
    Source: Vaswani et al. 2017, eq. 1, section 3.2.3; the gate after Arevalo et al. 2017, "Gated Multimodal Units",
    eq. 3, per token.
    """

    takes: ClassVar[Inputs] = "pair"
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __init__(self, dim: int, context: int, heads: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"{heads} heads do not divide the token dimension {dim}. Take a multiple of {heads}.")
        self.heads = heads
        self.explicit = False
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(context, dim, bias=False)
        self.value = nn.Linear(context, dim)
        self.maps = nn.Softmax(dim=-1)
        self.proj = nn.Linear(dim, dim)
        self.gate = nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid())

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with four heads, or the most below that divide the dimension."""
        return cls(channels, other or channels, most_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """Where the tokens look; the gate is part of the answer and not measured, its shape is no map's."""
        return (AttentionSite("", "cross-attention", "maps", grid=grid, heads=self.heads),)

    def attend(  # type: ignore[override]
        self, tokens: Tensor, context: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take from the context and give the map too. `mask` [B, M] says which of the context is real."""
        query, key, value = self._split(tokens, context)
        scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-2, -1)
        maps: Tensor = self.maps(hide(scores, mask))
        return self._join(tokens, maps @ value), maps

    def forward(self, tokens: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Take from the context."""
        if self.explicit:
            return self.attend(tokens, context, mask)[0]
        real = None if mask is None else mask[:, None, None]
        return self._join(tokens, F.scaled_dot_product_attention(*self._split(tokens, context), attn_mask=real))

    def _split(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = (self.query(tokens), self.key(context), self.value(context))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return query, key, value

    def _join(self, tokens: Tensor, heads: Tensor) -> Tensor:
        mixed: Tensor = tokens + self.gate(tokens) * self.proj(heads.transpose(1, 2).flatten(2))
        return mixed
