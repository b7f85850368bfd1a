"""How a classifier sums up a feature map."""

import torch
from torch import Tensor

POWER = 3.0
FLOOR = 1e-4


def generalised_mean(features: Tensor) -> Tensor:
    """Average over the image so that strong responses count more than their area: small lesions are not diluted.

    In float32 at least. Shapes: features [B, C, H, W], not negative -> [B, C].
    Source: Radenović et al. 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation", eq. 3, with their p = 3.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return wide.clamp_min(FLOOR).pow(POWER).mean((2, 3)).pow(1 / POWER)
