"""Self-attention to the neighbourhood and to a few tokens that see, and are seen by, all."""

import math
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.attention.heads import Heads, look, within
from common.attention.self_attention import most_heads

GLOBAL = 2


def neighbours_and_all(grid: Grid, radius: Grid, everywhere: int) -> Tensor:
    """Say who looks at whom: places up to `radius` apart along each axis, and `everywhere` places spread evenly.

    Shapes: bool [N, N], query before key.
    """
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid)).reshape(-1, len(grid))
    pattern = ((places[:, None] - places[None]).abs() <= torch.tensor(radius)).all(-1)
    spread = [(2 * index + 1) * len(places) // (2 * everywhere) for index in range(everywhere)]
    pattern[spread] = True
    pattern[:, spread] = True
    return pattern


class LocalGlobalAttention(AttentionLayer):
    """A token looks at its neighbourhood and at the global tokens; a global token looks at all.

    A class token is global; so are a few of the grid's own tokens, with the same projections as the others. All pairs
    are computed and most are thrown away: the layer has the pattern of its sources, not their speed.

    Shapes: tokens [B, N, D] -> mixed [B, N, D], maps [B, heads, N, N], rows sum to one, zero outside the pattern.
    Source: Beltagy et al. 2020, "Longformer", section 3.1 (windows and global tokens); Zaheer et al. 2020, "Big Bird",
    section 2 (global tokens among the existing ones); here without its random links.
    """

    takes: ClassVar[Inputs] = "tokens"
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    class_token: ClassVar[bool] = True

    def __init__(self, dim: int, grid: Grid, radius: Grid, everywhere: int = GLOBAL, heads: int = 4) -> None:
        super().__init__()
        self.explicit = False
        self.heads = Heads(dim, heads)
        self.pattern = neighbours_and_all(grid, radius, everywhere)
        self.maps = nn.Softmax(dim=-1)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with two global tokens and neighbourhoods up to seven places wide, less on a small grid."""
        radius = tuple(max(1, min(3, side // 4)) for side in grid)
        return cls(channels, grid, radius, min(GLOBAL, math.prod(grid)), most_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map."""
        return (AttentionSite("", "self-attention", "maps", grid=grid, cls=cls, heads=self.heads.heads),)

    def attend(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix tokens along the pattern and give the map."""
        seen = self._seen(tokens, mask)
        return look(self.heads, self.maps, tokens, lambda scores: scores.masked_fill(~seen, -math.inf))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix tokens along the pattern."""
        if self.explicit:
            return self.attend(tokens, mask)[0]
        return self.heads.join(
            F.scaled_dot_product_attention(*self.heads.split(tokens), attn_mask=self._seen(tokens, mask))
        )

    def _seen(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        first = tokens.shape[1] - len(self.pattern)
        return within(F.pad(self.pattern.to(tokens.device), (first, 0, first, 0), value=True), mask)
