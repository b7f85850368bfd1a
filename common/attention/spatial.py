"""What layers on feature maps share: convolutions in two or three dimensions, masks, means, sizes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
Norm = Callable[[int], nn.Module]
"""Builds the normalisation of so many channels."""


def one_group(channels: int) -> nn.GroupNorm:
    """Give GroupNorm over all channels: it stands where published code has BatchNorm, so that no image sees another."""
    return nn.GroupNorm(1, channels)


def blank(features: Tensor, mask: Tensor | None) -> Tensor:
    """Set to zero what is masked out. Shapes: features [B, C, *S], mask bool [B, *S] or None."""
    return features if mask is None else features.masked_fill(~mask[:, None], 0)


def mean_over_space(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average over the real positions; none at all gives 0. Shapes: [B, C, *S], mask bool [B, *S] -> [B, C]."""
    if mask is None:
        return features.flatten(2).mean(2)
    count = mask.flatten(1).sum(1, keepdim=True).clamp_min(1)
    return blank(features, mask).flatten(2).sum(2) / count


def greatest_over_space(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Take the maximum over the real positions; none at all gives 0. Shapes: as `mean_over_space`."""
    if mask is None:
        return features.flatten(2).amax(2)
    lowest = torch.finfo(features.dtype).min
    found = features.masked_fill(~mask[:, None], lowest).flatten(2).amax(2)
    return found.masked_fill(~mask.flatten(1).any(1)[:, None], 0)


def across(gates: Tensor, features: Tensor) -> Tensor:
    """Give gates the axes of a feature map. Shapes: gates [B, C], features [B, C, *S] -> [B, C, 1, …]."""
    return gates.reshape(*gates.shape, *[1] * (features.ndim - 2))


def resize(images: Tensor, like: Tensor) -> Tensor:
    """Bring images to the size of others, linearly, no corners aligned. Shapes: [B, C, *s] -> [B, C, *S]."""
    if images.shape[2:] == like.shape[2:]:
        return images
    mode = "bilinear" if images.ndim == 4 else "trilinear"
    return F.interpolate(images, size=like.shape[2:], mode=mode, align_corners=False)


def shrink_mask(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Bring a mask to the size of a coarser map: real where any pixel under it is. Shapes: [B, *S] -> [B, *s]."""
    if mask is None or mask.shape[1:] == like.shape[2:]:
        return mask
    pool = F.adaptive_max_pool2d if like.ndim == 4 else F.adaptive_max_pool3d
    return pool(mask[:, None].float(), like.shape[2:])[:, 0] > 0
