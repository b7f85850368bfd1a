"""Random views of an image under which its label stands: how another scanner or another aim might have shown it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.items import need_images, side_of

GAMMA, CONTRAST, BRIGHTNESS, NOISE = 0.3, 0.25, 0.1, 0.03
"""Reach of each change, in the units of an image whose values lie in [0, 1]; gamma is e^±."""
SHIFT = 1 / 16
"""Reach of a shift, as a share of the side."""


def views(images: Tensor, random: torch.Generator, shift: bool = True) -> Tensor:
    """Change gamma, contrast, brightness and noise of each image at random, and shift it a little.

    Nothing is mirrored, turned or cut away: laterality, orientation and findings at the edge are part of many labels.
    Published code mirrors, crops and mixes (AugMix, Hendrycks et al. 2020); ours does not. Without `shift` pixels stay
    in place, as segmentation needs.

    Shapes: images [B, C, H, W] in [-1, 1] -> the same.

    Raises:
        ConfigError: The batch is of bags.
    """
    need_images("adaptation by views of an image", side_of(images))
    count, device = len(images), images.device
    draws = (torch.rand(4, count, generator=random) * 2 - 1).to(device)[:, :, None, None, None]
    unit = ((images + 1) / 2).clamp(0, 1)
    unit = unit.clamp_min(1e-6) ** (GAMMA * draws[0]).exp()
    centre = unit.mean((1, 2, 3), keepdim=True)
    unit = centre + (unit - centre) * (1 + CONTRAST * draws[1]) + BRIGHTNESS * draws[2]
    unit = unit + NOISE * draws[3].abs() * torch.randn(images.shape, generator=random).to(images)
    changed = (unit.clamp(0, 1) * 2 - 1).to(images)
    return _shifted(changed, random) if shift else changed


def _shifted(images: Tensor, random: torch.Generator) -> Tensor:
    """Move each image by whole pixels; its edge is continued."""
    count, _, height, width = images.shape
    reach = max(1, round(min(height, width) * SHIFT))
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    places = torch.randint(0, 2 * reach + 1, (count, 2), generator=random).tolist()
    return torch.stack([padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(places)])
