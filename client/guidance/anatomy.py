"""Anatomy: attention belongs to where what is looked for can be."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from client.guidance.base import Known, Seen
from common.errors import ConfigError, DataError


class Anatomy:
    """L = −log(Σ_p α_p M_p + 1e-6): α the attention on the image, M in [0, 1] the region.

    Only for targets known to lie inside M: `share_outside` tells how much of the experts' masks does not.

    Source: ours; a mass loss as in weakly supervised localisation.
    """

    needs: ClassVar[tuple[str, ...]] = ("region",)

    def __init__(self, known: Known) -> None:
        assert known.region is not None
        self.region = known.region

    def __call__(self, seen: Seen) -> Tensor:
        """Give −log of the attention inside the region per image, [B]."""
        inside = (seen.picture * fitted(self.region, seen.picture)).sum((1, 2))
        return -(inside + 1e-6).log()


def fitted(region: Tensor, maps: Tensor) -> Tensor:
    """Put a region on the maps' device.

    Raises:
        DataError: It has another size than the maps.
    """
    if region.shape != maps.shape[1:]:
        raise DataError(
            f"the region of guidance is {tuple(region.shape)} and images are {tuple(maps.shape[1:])}. Both need the "
            f"same size; make the region from this site's images."
        )
    return region.to(maps)


def atlas(masks: Tensor, flips: bool) -> Tensor:
    """Give where a site's masks fall: their mean, blurred by a twelfth of the side, greatest value 1.

    The blur covers the shifts of augmentation; with `flips` the region is made the same left and right.

    Shapes: masks [N, H, W], foreground above 0 -> float32 [H, W].

    Raises:
        ConfigError: No mask has any foreground.
    """
    mean = (masks > 0).float().mean(0)
    if not mean.any():
        raise ConfigError(
            "guidance.region = 'atlas' needs masks and the site has none with foreground. Set it to 'disc', or "
            "guidance.anatomy to 0."
        )
    if flips:
        mean = torch.maximum(mean, mean.flip(1))
    reach = max(1, min(mean.shape) // 12)
    side = 2 * reach + 1
    padded = F.pad(mean[None, None], (reach,) * 4, mode="replicate")
    blurred = F.avg_pool2d(padded, side, stride=1)[0, 0]
    return blurred / blurred.max()


def share_outside(region: Tensor, masks: Tensor) -> float:
    """Say which share of the masks' foreground lies where the region is below one half. Shapes: [H, W], [N, H, W]."""
    found = masks > 0
    total = int(found.sum())
    return float((found & (region < 0.5)).sum()) / total if total else 0.0
