"""Additive attention gate: a coarse, deep signal decides which parts of a fine skip connection pass."""

from torch import Tensor, nn
from torch.nn import functional as F


class AttentionGate(nn.Module):
    """Keep the positions of `features` that the gating signal supports.

    `gate` is the submodule whose output is the attention tensor, on a grid half as fine as the features. GroupNorm
    before the ReLU stands for the BatchNorm of published code, so that no statistic crosses images; the gated features
    pass no further convolution.

    Shapes: features [B, C, H, W], gating [B, G, h, w] -> gated [B, C, H, W], gates [B, 1, H // 2, W // 2] in (0, 1).
    Source: Oktay et al. 2018, "Attention U-Net: Learning Where to Look for the Pancreas", eq. 1-2 (additive form).
    """

    def __init__(self, channels: int, gating: int | None = None, inner: int | None = None) -> None:
        super().__init__()
        inner = inner or max(4, channels)
        self.theta = nn.Conv2d(channels, inner, 2, stride=2, bias=False)
        self.phi = nn.Conv2d(gating or channels, inner, 1)
        self.norm = nn.GroupNorm(1, inner)
        self.gate = nn.Sequential(nn.ReLU(), nn.Conv2d(inner, 1, 1), nn.Sigmoid())

    def attend(self, features: Tensor, gating: Tensor) -> tuple[Tensor, Tensor]:
        """Gate the positions and give the gates too."""
        fine: Tensor = self.theta(features)
        gates: Tensor = self.gate(self.norm(fine + resize(self.phi(gating), fine)))
        return features * resize(gates, features), gates

    def forward(self, features: Tensor, gating: Tensor) -> Tensor:
        """Gate the positions."""
        return self.attend(features, gating)[0]


def resize(images: Tensor, like: Tensor) -> Tensor:
    """Bring images to the height and width of others, bilinearly. Shapes: [B, C, h, w] -> [B, C, H, W]."""
    if images.shape[2:] == like.shape[2:]:
        return images
    return F.interpolate(images, size=like.shape[2:], mode="bilinear", align_corners=False)
