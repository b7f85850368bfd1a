"""A U-Net for images or volumes with an attention layer on its skip connections or in its blocks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionModel, AttentionSite, Grid
from common.attention.spatial import CONVOLUTIONS, resize
from common.config import ModelSection
from common.models.group_norm import normalised
from common.models.placement import NONE, Spot, choose, feature_block, sites_of, skip_block, spread

SHRINKS = 8
"""The deepest level is so many times smaller than the image."""


SLOPE = 0.1
"""Of the leaky ReLU on the negative side, where a plain ReLU dies: with few channels at full resolution the head then
sees nothing but zeros and answers "background" for hundreds of steps. Ours; Isensee et al. 2021 use 0.01."""


def double(inputs: int, outputs: int, dims: int) -> nn.Sequential:
    """Give two normalised convolutions three wide, each followed by a leaky ReLU."""
    return nn.Sequential(
        normalised(inputs, outputs, dims=dims),
        nn.LeakyReLU(SLOPE),
        normalised(outputs, outputs, dims=dims),
        nn.LeakyReLU(SLOPE),
    )


class Up(nn.Module):
    """One step up: the skip connection passes its attention, gated by the coarse features where the layer is a gate.

    Shapes: coarse [B, G, *s], skip [B, C, *grid] -> [B, C, *grid].
    """

    def __init__(self, coarse: int, skip: int, attention: str, grid: Grid) -> None:
        super().__init__()
        self.gate = skip_block(attention, skip, grid, coarse)
        self.gated_by_coarse = isinstance(self.gate, AttentionLayer) and self.gate.takes == "skip"
        self.reduce = CONVOLUTIONS[len(grid)](coarse, skip, 1)
        self.join = double(2 * skip, skip, len(grid))

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """Gate, enlarge and join. The 1x1 convolution commutes with the enlargement; before it, it is cheaper."""
        gated = self.gate(skip, coarse) if self.gated_by_coarse else self.gate(skip)
        joined: Tensor = self.join(torch.cat([gated, resize(self.reduce(coarse), skip)], 1))
        return joined


class UNet(AttentionModel):
    """Four levels with `width` / 2, `width`, 2 and 4 `width` channels; attention on three skips or in four blocks.

    The level at full resolution is half as wide as the rest asks for: it costs the most and knows the least. Images
    whose side 8 does not divide are continued at their far edges; the answer is cut back.

    Shapes: images [B, C, *S] -> logits [B, outputs, *S]; features [B, width / 2, *S]; S two or three axes.
    Source: Oktay et al. 2018, "Attention U-Net: Learning Where to Look for the Pancreas", figure 1.
    """

    dense = True

    def __init__(self, channels: int, outputs: int, width: int, grid: Grid, attention: str, spot: Spot) -> None:
        """Build for images of the size `grid`, two or three axes; attention in the spot `block` or `skip`."""
        super().__init__()
        sizes, dims = (max(4, width // 2), width, 2 * width, 4 * width), len(grid)
        grids = [tuple(-(-side // SHRINKS) * SHRINKS // 2**level for side in grid) for level in range(4)]
        on_skips = spread(attention if spot == "skip" else NONE, grids[:3])
        in_blocks = spread(attention if spot == "block" else NONE, grids)
        self.down1 = double(channels, sizes[0], dims)
        self.down2 = double(sizes[0], sizes[1], dims)
        self.down3 = double(sizes[1], sizes[2], dims)
        self.bottom = double(sizes[2], sizes[3], dims)
        self.up3 = Up(sizes[3], sizes[2], on_skips[2], grids[2])
        self.up2 = Up(sizes[2], sizes[1], on_skips[1], grids[1])
        self.up1 = Up(sizes[1], sizes[0], on_skips[0], grids[0])
        self.head = CONVOLUTIONS[dims](sizes[0], outputs, 1)
        self.attend = nn.ModuleList(map(feature_block, in_blocks, sizes, grids))
        self.pool = nn.MaxPool2d(2) if dims == 2 else nn.MaxPool3d(2)
        self.attention_sites = (*self._block_sites(grids), *self._skip_sites(grids))

    def _block_sites(self, grids: list[Grid]) -> list[AttentionSite]:
        levels = ("down1", "down2", "down3", "bottom")
        return [
            site
            for i, (block, level) in enumerate(zip(self.attend, levels, strict=True))
            for site in sites_of(block, f"attend.{i}", f"{level}.attention", grids[i], f"{level}.2")
        ]

    def _skip_sites(self, grids: list[Grid]) -> list[AttentionSite]:
        ups = ((3, self.up3), (2, self.up2), (1, self.up1))
        return [
            site
            for i, up in ups
            for site in sites_of(up.gate, f"up{i}.gate", f"up{i}.gate", grids[i - 1], f"down{i}.3")
        ]

    def _down(self, level: int, features: Tensor) -> Tensor:
        """Apply a level's two convolutions. Attention stands before the last ReLU, behind which all means are alike."""
        *parts, last = (self.down1, self.down2, self.down3, self.bottom)[level]
        for part in parts:
            features = part(features)
        ready: Tensor = last(self.attend[level](features))
        return ready

    def features(self, images: Tensor) -> Tensor:
        """Give the last level's activations at full resolution."""
        images = self.before(images)
        sides = images.shape[2:]
        if any(side % SHRINKS for side in sides):
            edges = [edge for side in reversed(sides) for edge in (0, -side % SHRINKS)]
            images = F.pad(images, edges, mode="replicate")
        skip1 = self._down(0, images)
        skip2 = self._down(1, self.pool(skip1))
        skip3 = self._down(2, self.pool(skip2))
        deep = self._down(3, self.pool(skip3))
        full: Tensor = self.up1(self.up2(self.up3(deep, skip3), skip2), skip1)
        for axis, side in enumerate(sides, 2):
            full = full.narrow(axis, 0, side)
        return full

    def forward(self, images: Tensor) -> Tensor:
        """Segment."""
        logits: Tensor = self.head(self.features(images))
        return logits


def unet(settings: ModelSection, channels: int, outputs: int, image_size: int) -> UNet:
    """Build the segmenter, by itself with attention gates on its skips; any image size from 16 pixels up."""
    return volume_unet(settings, channels, outputs, (image_size, image_size))


def volume_unet(settings: ModelSection, channels: int, outputs: int, grid: Grid) -> UNet:
    """Build the segmenter for images or volumes of any size from 16 pixels up, such as (depth, rows, columns)."""
    spot: Spot = "block" if settings.placement == "block" else "skip"
    attention = choose(settings, "attention-gate", spot, len(grid))
    return UNet(channels, outputs, settings.width, grid, attention, spot)
