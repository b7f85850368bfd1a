"""Squeeze-and-excitation: one gate per channel, from what the channels hold on average."""

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Weigh every channel by a gate in (0, 1) that all channels decide together.

    `gate` is the submodule whose output is the attention tensor.

    Shapes: features [B, C, H, W] -> gated [B, C, H, W], gates [B, C].
    Source: Hu et al. 2018, "Squeeze-and-Excitation Networks", eq. 2 (squeeze), eq. 3 (excitation), eq. 4 (scale).
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        first = nn.Linear(channels, hidden)
        # Channel means are small: with a random bias a hidden unit would be on, or dead, for every image.
        nn.init.zeros_(first.bias)
        self.gate = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def attend(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Gate the channels and give the gates too."""
        gates: Tensor = self.gate(features.mean((2, 3)))
        return features * gates[:, :, None, None], gates

    def forward(self, features: Tensor) -> Tensor:
        """Gate the channels."""
        return self.attend(features)[0]
