"""Self-attention with any map from scores to weights in the place of softmax."""

from typing import ClassVar

from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.attention.heads import Heads, look
from common.attention.self_attention import hide


class MappedAttention(AttentionLayer):
    """Every token looks at tokens of the same image as `maps` makes weights of the scores.

    What is masked out has the score minus infinity and gets the weight zero.

    Shapes: tokens [B, N, D] -> mixed [B, N, D], maps [B, heads, N, N] with rows that sum to one.
    """

    takes: ClassVar[Inputs] = "tokens"
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    class_token: ClassVar[bool] = True

    def __init__(self, dim: int, heads: int, maps: nn.Module) -> None:
        super().__init__()
        self.heads = Heads(dim, heads)
        self.maps = maps

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map."""
        return (AttentionSite("", "self-attention", "maps", grid=grid, cls=cls, heads=self.heads.heads),)

    def attend(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix tokens and give the map."""
        return look(self.heads, self.maps, tokens, lambda scores: hide(scores, mask))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix tokens."""
        return self.attend(tokens, mask)[0]
