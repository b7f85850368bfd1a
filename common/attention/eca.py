"""Efficient channel attention: one gate per channel, decided by its neighbours in the channel order."""

import math
from typing import Self

from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.spatial import across, mean_over_space
from common.errors import ConfigError


class EfficientChannelAttention(AttentionLayer):
    """Weigh every channel by what it and its k - 1 neighbours hold on average: k weights in all, no hidden layer.

    `gate` is the submodule whose output is the attention tensor.

    Shapes: features [B, C, *S] -> gated [B, C, *S], gates [B, C].
    Source: Wang et al. 2020, "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks",
    section 3.2: w = sigmoid(C1D_k(GAP(x))), k = |log2(C) / 2 + 1 / 2| made odd.

    Raises:
        ConfigError: An even kernel has no middle.
    """

    def __init__(self, channels: int, kernel: int | None = None) -> None:
        super().__init__()
        kernel = kernel or kernel_for(channels)
        if kernel % 2 == 0:
            raise ConfigError(
                f"The kernel over the channels is {kernel} wide. Allowed are odd numbers; take {kernel + 1}."
            )
        conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.gate = nn.Sequential(nn.Unflatten(1, (1, channels)), conv, nn.Flatten(), nn.Sigmoid())

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


def kernel_for(channels: int, slope: float = 2, offset: float = 1) -> int:
    """Give the paper's kernel, |log2(C) / slope + offset / slope| made odd: 16 channels 3, 256 channels 5."""
    size = int(abs((math.log2(channels) + offset) / slope))
    return size if size % 2 else size + 1
