"""Spatial half of scSE: squeeze over the channels, excite the positions."""

from typing import Self

from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.spatial import CONVOLUTIONS, blank


class SpatialExcitation(AttentionLayer):
    """Weigh every position by one linear view of its channels.

    `gate` is the submodule whose output is the attention tensor.

    Shapes: features [B, C, *S] -> gated [B, C, *S], gates [B, 1, *S].
    Source: Roy et al. 2018, "Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks",
    section 2 (sSE): gates sigmoid(w . x) with one weight per channel.
    """

    def __init__(self, channels: int, dims: int = 2) -> None:
        super().__init__()
        self.gate = nn.Sequential(CONVOLUTIONS[dims](channels, 1, 1), nn.Sigmoid())

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer for so many channels."""
        return cls(channels, len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One spatial gate."""
        return (AttentionSite("", "spatial-gate", "gate", grid=grid),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Gate the positions and give the gates too."""
        features = blank(features, mask)
        gates: Tensor = self.gate(features)
        return features * gates, gates

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Gate the positions."""
        return self.attend(features, mask)[0]
