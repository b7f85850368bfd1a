"""Self-attention at a cost that grows with the number of tokens, not with its square."""

from typing import ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.attention.heads import Heads
from common.attention.self_attention import most_heads

LEAST = 1e-6
"""Below every sum of features that has a real token in it."""


class Share(nn.Module):
    """Divide each row by its sum. Shapes: positive [..., N] -> the same."""

    def forward(self, rows: Tensor) -> Tensor:
        """Divide."""
        return rows / rows.sum(-1, keepdim=True).clamp_min(LEAST)


class LinearAttention(AttentionLayer):
    """Weigh by φ(q)·φ(k) with φ(x) = elu(x) + 1, so that keys and values are summed up once for all queries.

    o_i = φ(q_i) Σ_j φ(k_j) v_jᵀ / φ(q_i)·Σ_j φ(k_j). With `explicit` the weights of all pairs are made and pass through
    `maps`, whose output is the attention tensor; without it they never exist.

    Shapes: tokens [B, N, D] -> mixed [B, N, D], maps [B, heads, N, N] with rows that sum to one.
    Source: Katharopoulos et al. 2020, "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
    eq. 5 and 7.
    """

    takes: ClassVar[Inputs] = "tokens"
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    class_token: ClassVar[bool] = True

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.explicit = False
        self.heads = Heads(dim, heads)
        self.maps = Share()

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with four heads, or the most below that divide the dimension."""
        return cls(channels, most_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map."""
        return (AttentionSite("", "self-attention", "maps", grid=grid, cls=cls, heads=self.heads.heads),)

    def attend(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix tokens through the weights of all pairs, and give those."""
        query, key, value = self._features(tokens, mask)
        maps: Tensor = self.maps(query @ key.transpose(-2, -1))
        return self.heads.join(maps @ value), maps

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix tokens."""
        if self.explicit:
            return self.attend(tokens, mask)[0]
        query, key, value = self._features(tokens, mask)
        total = query @ key.sum(-2).unsqueeze(-1)
        return self.heads.join(query @ (key.transpose(-2, -1) @ value) / total.clamp_min(LEAST))

    def _features(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Give φ(query), φ(key) and value; a masked key has no features."""
        query, key, value = self.heads.split(tokens)
        key = F.elu(key) + 1
        if mask is not None:
            key = key.masked_fill(~mask[:, None, :, None], 0)
        return F.elu(query) + 1, key, value
