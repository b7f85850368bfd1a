"""Self-attention along each axis of a feature map in turn."""

from typing import Self, cast

from torch import Tensor, nn

from common.attention.axis import AxisAttention, Places, halved_heads
from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.spatial import Norm, one_group


class AxialAttention(AttentionLayer):
    """Attention along the first axis, then along the next, so that after all of them each place has seen the whole map.

    Shapes: features [B, C, *S] -> mixed [B, C, *S], one map [B, L, heads, n, n] per axis, rows sum to one.
    Source: Wang et al. 2020, "Axial-DeepLab: Stand-Alone Axial-Attention for Panoptic Segmentation", eq. 4.
    """

    def __init__(self, channels: int, grid: Grid, heads: int = 4, gated: bool = False, norm: Norm = one_group) -> None:
        super().__init__()
        self.heads = heads
        self.axes = nn.ModuleList(
            AxisAttention(channels, len(grid), axis, heads, Places(channels // heads, side, gated), norm)
            for axis, side in enumerate(grid)
        )

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with four heads, or the most below that leave each an even number of channels."""
        return cls(channels, grid, halved_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map per axis."""
        return tuple(
            AttentionSite(f"axis{axis}", "axial", f"axes.{axis}.maps", grid=grid, heads=self.heads, axis=axis)
            for axis in range(len(self.axes))
        )

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Mix along each axis and give the maps."""
        maps = []
        for axis in self.axes:
            features, found = cast(AxisAttention, axis).attend(features, mask)
            maps.append(found)
        return features, *maps

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix along each axis."""
        return self.attend(features, mask)[0]
