"""Squeeze-and-excitation: one gate per channel, from what the channels hold on average."""

from typing import Self

from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.spatial import across, mean_over_space


class SqueezeExcitation(AttentionLayer):
    """Weigh every channel by a gate in (0, 1) that all channels decide together.

    `gate` is the submodule whose output is the attention tensor.

    Shapes: features [B, C, *S] -> gated [B, C, *S], gates [B, C].
    Source: Hu et al. 2018, "Squeeze-and-Excitation Networks", eq. 2 (squeeze), eq. 3 (excitation), eq. 4 (scale).
    """

    def __init__(self, channels: int, reduction: int = 4, bias: bool = True, least: int = 4) -> None:
        super().__init__()
        hidden = max(least, channels // reduction)
        first = nn.Linear(channels, hidden, bias)
        if bias:
            # Channel means are small: with a random bias a hidden unit would be on, or dead, for every image.
            nn.init.zeros_(first.bias)
        self.gate = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, channels, bias), nn.Sigmoid())

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer for so many channels."""
        return cls(channels)

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One channel gate."""
        return (AttentionSite("", "channel-gate", "gate"),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Gate the channels and give the gates too."""
        gates: Tensor = self.gate(mean_over_space(features, mask))
        return features * across(gates, features), gates

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Gate the channels."""
        return self.attend(features, mask)[0]
