"""A two-dimensional U-Net whose skip connections pass attention gates."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.attention_gate import AttentionGate
from common.attention.base import AttentionModel, AttentionSite
from common.attention.spatial import resize
from common.config import ModelSection
from common.models.group_norm import normalised

SHRINKS = 8
"""The deepest level is so many times smaller than the image."""


SLOPE = 0.1
"""Of the leaky ReLU on the negative side, where a plain ReLU dies: with few channels at full resolution the head then
sees nothing but zeros and answers "background" for hundreds of steps. Ours; Isensee et al. 2021 use 0.01."""


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Give two normalised 3x3 convolutions, each followed by a leaky ReLU."""
    return nn.Sequential(
        normalised(inputs, outputs), nn.LeakyReLU(SLOPE), normalised(outputs, outputs), nn.LeakyReLU(SLOPE)
    )


class Up(nn.Module):
    """One step up: the coarse features gate the skip connection, then join it.

    Shapes: coarse [B, G, h, w], skip [B, C, H, W] -> [B, C, H, W].
    """

    def __init__(self, coarse: int, skip: int) -> None:
        super().__init__()
        self.gate = AttentionGate(skip, coarse)
        self.reduce = nn.Conv2d(coarse, skip, 1)
        self.join = double(2 * skip, skip)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """Gate, enlarge and join. The 1x1 convolution commutes with the enlargement; before it, it is cheaper."""
        gated = self.gate(skip, coarse)
        joined: Tensor = self.join(torch.cat([gated, resize(self.reduce(coarse), skip)], 1))
        return joined


class AttentionUNet(AttentionModel):
    """Four levels with `width` / 2, `width`, 2 and 4 `width` channels; three attention gates.

    The level at full resolution is half as wide as the rest asks for: it costs the most and knows the least. Images
    whose side 8 does not divide are continued at their right and lower edge; the answer is cut back.

    Shapes: images [B, C, H, W] -> logits [B, outputs, H, W]; features [B, width / 2, H, W].
    Source: Oktay et al. 2018, "Attention U-Net: Learning Where to Look for the Pancreas", figure 1.
    """

    dense = True

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        sizes = (max(4, width // 2), width, 2 * width, 4 * width)
        self.down1 = double(channels, sizes[0])
        self.down2 = double(sizes[0], sizes[1])
        self.down3 = double(sizes[1], sizes[2])
        self.bottom = double(sizes[2], sizes[3])
        self.up3 = Up(sizes[3], sizes[2])
        self.up2 = Up(sizes[2], sizes[1])
        self.up1 = Up(sizes[1], sizes[0])
        self.head = nn.Conv2d(sizes[0], outputs, 1)
        self.attention_sites = tuple(
            AttentionSite(f"{level}.gate", "attention-gate", f"{level}.gate.gate") for level in ("up3", "up2", "up1")
        )

    def features(self, images: Tensor) -> Tensor:
        """Give the last level's activations at full resolution."""
        height, width = images.shape[2:]
        if height % SHRINKS or width % SHRINKS:
            images = F.pad(images, (0, -width % SHRINKS, 0, -height % SHRINKS), mode="replicate")
        skip1 = self.down1(images)
        skip2 = self.down2(F.max_pool2d(skip1, 2))
        skip3 = self.down3(F.max_pool2d(skip2, 2))
        deep = self.bottom(F.max_pool2d(skip3, 2))
        full: Tensor = self.up1(self.up2(self.up3(deep, skip3), skip2), skip1)
        return full[:, :, :height, :width]

    def forward(self, images: Tensor) -> Tensor:
        """Segment."""
        logits: Tensor = self.head(self.features(images))
        return logits


def attention_unet(settings: ModelSection, channels: int, outputs: int, image_size: int) -> AttentionUNet:
    """Build the segmenter; any image size from 16 pixels up."""
    return AttentionUNet(channels, outputs, settings.width)
