"""CBAM: first which channels, then where."""

import torch
from torch import Tensor, nn


class ChannelGate(nn.Module):
    """One gate per channel, from its mean and its maximum over the image.

    Shapes: features [B, C, H, W] -> gates [B, C] in (0, 1).
    Source: Woo et al. 2018, "CBAM: Convolutional Block Attention Module", eq. 2.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        first = nn.Linear(channels, hidden)
        # Channel means are small: with a random bias a hidden unit would be on, or dead, for every image.
        nn.init.zeros_(first.bias)
        self.mlp = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, features: Tensor) -> Tensor:
        """Decide how much each channel counts. One call of the network for both summaries, the image axis first."""
        summaries = torch.stack([features.mean((2, 3)), features.amax((2, 3))], 1)
        evidence: Tensor = self.mlp(summaries)
        return evidence.sum(1).sigmoid()


class SpatialGate(nn.Module):
    """One gate per position, from the mean and the maximum over the channels there.

    Shapes: features [B, C, H, W] -> gates [B, 1, H, W] in (0, 1).
    Source: Woo et al. 2018, eq. 3; without the batch normalisation of the authors' code.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, features: Tensor) -> Tensor:
        """Decide how much each position counts."""
        summaries = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        gates: Tensor = self.conv(summaries).sigmoid()
        return gates


class Cbam(nn.Module):
    """Channel gate, then spatial gate; `channel` and `spatial` are the submodules whose outputs are the attention.

    Shapes: features [B, C, H, W] -> gated [B, C, H, W], channel gates [B, C], spatial gates [B, 1, H, W].
    Source: Woo et al. 2018, eq. 1.
    """

    def __init__(self, channels: int, reduction: int = 4, kernel: int = 7) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, reduction)
        self.spatial = SpatialGate(kernel)

    def attend(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gate channels and positions and give both gates too."""
        channel: Tensor = self.channel(features)
        features = features * channel[:, :, None, None]
        spatial: Tensor = self.spatial(features)
        return features * spatial, channel, spatial

    def forward(self, features: Tensor) -> Tensor:
        """Gate channels and positions."""
        return self.attend(features)[0]
