"""scSE: channels and positions excited side by side."""

from typing import Literal, Self

import torch
from torch import Tensor

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.cse import ChannelExcitation
from common.attention.spatial import blank
from common.attention.sse import SpatialExcitation


class ConcurrentExcitation(AttentionLayer):
    """Add what the channel gates and what the spatial gates let through, both seeing the same features.

    The authors' published code takes the greater of the two, `combine="max"`.

    Shapes: features [B, C, *S] -> gated [B, C, *S], channel gates [B, C], spatial gates [B, 1, *S].
    Source: Roy et al. 2018, "Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks",
    section 2 (scSE: U_scSE = U_cSE + U_sSE).
    """

    def __init__(
        self, channels: int, reduction: int = 2, dims: int = 2, combine: Literal["add", "max"] = "add"
    ) -> None:
        super().__init__()
        self.combine = combine
        self.channel = ChannelExcitation(channels, reduction)
        self.spatial = SpatialExcitation(channels, dims)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer for so many channels."""
        return cls(channels, dims=len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """A channel gate and a spatial gate."""
        return (
            AttentionSite("channel", "channel-gate", "channel.gate"),
            AttentionSite("spatial", "spatial-gate", "spatial.gate", grid=grid),
        )

    def attend(  # type: ignore[override]
        self, features: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gate channels and positions and give both gates too."""
        features = blank(features, mask)
        by_channel, channel = self.channel.attend(features, mask)
        by_place, spatial = self.spatial.attend(features)
        both = torch.maximum(by_channel, by_place) if self.combine == "max" else by_channel + by_place
        return both, channel, spatial

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Gate channels and positions."""
        return self.attend(features, mask)[0]
