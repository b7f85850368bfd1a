"""CBAM: first which channels, then where."""

from typing import Self

import torch
from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.spatial import CONVOLUTIONS, Norm, across, blank, greatest_over_space, mean_over_space


class ChannelGate(nn.Module):
    """One gate per channel, from its mean and its maximum over the image.

    Shapes: features [B, C, *S], mask bool [B, *S] -> gates [B, C] in (0, 1).
    Source: Woo et al. 2018, "CBAM: Convolutional Block Attention Module", eq. 2.
    """

    def __init__(self, channels: int, reduction: int, least: int = 4) -> None:
        super().__init__()
        hidden = max(least, channels // reduction)
        first = nn.Linear(channels, hidden)
        # Channel means are small: with a random bias a hidden unit would be on, or dead, for every image.
        nn.init.zeros_(first.bias)
        self.mlp = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, channels))
        self.squash = nn.Sigmoid()

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Decide how much each channel counts. One call of the network for both summaries, the image axis first."""
        summaries = torch.stack([mean_over_space(features, mask), greatest_over_space(features, mask)], 1)
        evidence: Tensor = self.mlp(summaries)
        gates: Tensor = self.squash(evidence.sum(1))
        return gates


class SpatialGate(nn.Module):
    """One gate per position, from the mean and the maximum over the channels there.

    Shapes: features [B, C, *S] -> gates [B, 1, *S] in (0, 1).
    Source: Woo et al. 2018, eq. 3; the authors' code adds a batch normalisation, which `norm` can stand for.
    """

    def __init__(self, kernel: int, dims: int = 2, norm: Norm | None = None) -> None:
        super().__init__()
        self.conv = CONVOLUTIONS[dims](2, 1, kernel, padding=kernel // 2, bias=norm is None)
        self.norm = norm(1) if norm else nn.Identity()
        self.squash = nn.Sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        """Decide how much each position counts."""
        summaries = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        gates: Tensor = self.squash(self.norm(self.conv(summaries)))
        return gates


class Cbam(AttentionLayer):
    """Channel gate, then spatial gate; `channel` and `spatial` are the submodules whose outputs are the attention.

    Shapes: features [B, C, *S] -> gated [B, C, *S], channel gates [B, C], spatial gates [B, 1, *S].
    Source: Woo et al. 2018, eq. 1.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        kernel: int = 7,
        dims: int = 2,
        norm: Norm | None = None,
        least: int = 4,
    ) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, reduction, least)
        self.spatial = SpatialGate(kernel, dims, norm)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer for so many channels."""
        return cls(channels, dims=len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """A channel gate and a spatial gate."""
        return (
            AttentionSite("channel", "channel-gate", "channel"),
            AttentionSite("spatial", "spatial-gate", "spatial", grid=grid),
        )

    def attend(  # type: ignore[override]
        self, features: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gate channels and positions and give both gates too."""
        channel: Tensor = self.channel(features, mask)
        features = blank(features, mask) * across(channel, features)
        spatial: Tensor = self.spatial(features)
        return features * spatial, channel, spatial

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Gate channels and positions."""
        return self.attend(features, mask)[0]
