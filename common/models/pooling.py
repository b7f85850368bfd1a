"""How a classifier shrinks an image and sums up what is left."""

import torch
from torch import Tensor, nn

from common.attention.base import Grid

POWER = 3.0
FLOOR = 1e-4


def generalised_mean(features: Tensor) -> Tensor:
    """Average over the image so that strong responses count more than their area: small lesions are not diluted.

    In float32 at least. Shapes: features [B, C, H, W], not negative -> [B, C].
    Source: Radenović et al. 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation", eq. 3, with their p = 3.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return wide.clamp_min(FLOOR).pow(POWER).mean((2, 3)).pow(1 / POWER)


class GeneralisedMean(nn.Module):
    """`generalised_mean` as a submodule. Shapes: [B, C, H, W] -> [B, C]."""

    def forward(self, features: Tensor) -> Tensor:
        """Sum up."""
        return generalised_mean(features)


def classifier_grids(image_size: int) -> tuple[Grid, Grid, Grid]:
    """Give the grids of a classifier's three stages, at 1/2, 1/4 and 1/8 of the side, rounded up."""
    sides = (-(-image_size // 2), -(-image_size // 4), -(-image_size // 8))
    return (sides[0],) * 2, (sides[1],) * 2, (sides[2],) * 2
