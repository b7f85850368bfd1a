"""Self-attention with a learnt bias for every head and every offset between two places."""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.attention.heads import Heads, look
from common.attention.self_attention import hide, most_heads


class RelativeBias(nn.Module):
    """Add to each score what the head learnt about the offset from query to key.

    A class token in front has no place: its row and column stay as they are.

    Shapes: scores [B, *, heads, n, n] -> the same, n = product of `grid` (one more with a class token).
    Source: Liu et al. 2021, "Swin Transformer", eq. 4.
    """

    def __init__(self, grid: Grid, heads: int) -> None:
        super().__init__()
        self.index = offsets(grid)
        self.table = nn.Parameter(torch.empty(int(self.index.max()) + 1, heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, scores: Tensor) -> Tensor:
        """Add the bias."""
        bias = self.table[self.index].permute(2, 0, 1)
        more = scores.shape[-1] - bias.shape[-1]
        return scores + F.pad(bias, (more, 0, more, 0))


def offsets(grid: Grid) -> Tensor:
    """Number the offsets from query to key. Shapes: int64 [n, n], values below the product of 2 * side - 1."""
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid)).reshape(-1, len(grid))
    apart = places[:, None] - places[None] + torch.tensor(grid) - 1
    index = torch.zeros_like(apart[..., 0])
    for axis, side in enumerate(grid):
        index = index * (2 * side - 1) + apart[..., axis]
    return index


class RelativePosition(AttentionLayer):
    """Every token looks at every token; places count by how far they lie apart, not by where they are.

    Shapes: tokens [B, N, D] -> mixed [B, N, D], maps [B, heads, N, N] with rows that sum to one.
    Source: Liu et al. 2021, "Swin Transformer", eq. 4, over a whole grid; the idea of relative places is of Shaw et al.
    2018, "Self-Attention with Relative Position Representations", eq. 4.
    """

    takes: ClassVar[Inputs] = "tokens"
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    class_token: ClassVar[bool] = True

    def __init__(self, dim: int, grid: Grid, heads: int = 4) -> None:
        super().__init__()
        self.heads = Heads(dim, heads)
        self.bias = RelativeBias(grid, heads)
        self.maps = nn.Softmax(dim=-1)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with four heads, or the most below that divide the dimension."""
        return cls(channels, grid, most_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map."""
        return (AttentionSite("", "self-attention", "maps", grid=grid, cls=cls, heads=self.heads.heads),)

    def attend(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix tokens by similarity and offset, and give the map."""
        return look(self.heads, self.maps, tokens, lambda scores: hide(self.bias(scores), mask))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix tokens by similarity and offset."""
        return self.attend(tokens, mask)[0]
