"""What each model of MODELS is fed in tests: images, or bags of a few features. The one place that knows which."""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.items import BAG_SIDE
from common.models import BAG_MODELS

FEATURES, INSTANCES = 5, 12


def fed(name: str, channels: int = 1, size: int = 32) -> tuple[int, int]:
    """Give channels and side as a model's builder takes them; a bag has the more features the more channels."""
    return (1 + FEATURES + channels, BAG_SIDE) if name in BAG_MODELS else (channels, size)


def noisy(name: str, count: int, channels: int = 1, size: int = 32, seed: int = 0) -> Tensor:
    """Draw images of normal noise in [-1, 1], or bags of such features."""
    source = torch.Generator().manual_seed(seed)
    if name in BAG_MODELS:
        return bags(torch.randn(count, FEATURES + channels, INSTANCES, 1, generator=source).clamp(-1, 1))
    return torch.randn(count, channels, size, size, generator=source).clamp(-1, 1)


def smooth(name: str, count: int, channels: int = 1, size: int = 28, seed: int = 2) -> Tensor:
    """Draw smooth images, or bags."""
    if name in BAG_MODELS:
        return noisy(name, count, channels, size, seed)
    coarse = torch.rand(count, channels, 7, 7, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, size=(size, size), mode="bilinear")


def bags(features: Tensor) -> Tensor:
    """Mark real instances: all, all but one, but two, but three, and again. [B, F, T, 1] -> [B, 1 + F, T, 1]."""
    count, _, length, _ = features.shape
    real = (torch.arange(length) < (length - torch.arange(count) % 4)[:, None]).float()[:, None, :, None]
    return torch.cat([real, features * real], 1)
