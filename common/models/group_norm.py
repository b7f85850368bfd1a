"""Convolution and GroupNorm, the pair that residual nets and U-Nets repeat."""

from torch import nn

from common.models.weight_standardised import WEIGHT_STANDARDISED


def group_norm(channels: int) -> nn.GroupNorm:
    """Give GroupNorm with groups of eight channels, or the nearest size below that divides them.

    Source: Wu and He 2018, "Group Normalization", table 3 (fixed channels per group).
    """
    size = next(size for size in range(min(8, channels), 0, -1) if channels % size == 0)
    return nn.GroupNorm(channels // size, channels)


def normalised(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dims: int = 2) -> nn.Sequential:
    """Give a weight-standardised convolution followed by GroupNorm.

    Source: Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization".
    """
    return nn.Sequential(WEIGHT_STANDARDISED[dims](inputs, outputs, kernel, stride), group_norm(outputs))
