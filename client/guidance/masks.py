"""Expert supervision: where experts drew masks, attention should fall inside them."""

from typing import ClassVar

import torch
from torch import Tensor

from client.guidance.base import Known, Seen
from common.errors import DataError


class Masks:
    """L = (1 − energy inside the mask) + (1 − soft Dice of the map over its maximum); 0 where there is no mask.

    Energy alone is content with one bright pixel; Dice wants the whole lesion (Milletari et al. 2016, V-Net, eq. 3 with
    a linear denominator).
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, known: Known) -> None:
        """Need nothing of what is known: the masks come with the batch."""

    def __call__(self, seen: Seen) -> Tensor:
        """Give the loss per image, [B]; an image without a mask or with an empty one has none."""
        maps, masks = seen.picture, seen.batch.masks
        if masks is None:
            return maps.new_zeros(len(maps))
        if masks.shape != maps.shape:
            raise DataError(
                f"masks are {tuple(masks.shape[1:])} and images are {tuple(maps.shape[1:])}. Guidance by masks needs "
                f"the same size; prepare the masks with the images, or set guidance.masks to 0."
            )
        inside = (masks > 0).to(maps)
        drawn = inside.flatten(1).any(1)
        return torch.where(drawn, distance(maps, inside), maps.new_zeros(()))


def distance(maps: Tensor, inside: Tensor) -> Tensor:
    """Give (1 − energy) + (1 − Dice) per image. Shapes: maps [B, H, W] with sum 1, inside [B, H, W] of 0 and 1."""
    energy = (maps * inside).sum((1, 2))
    bright = maps / maps.amax((1, 2), keepdim=True)
    dice = 2 * (bright * inside).sum((1, 2)) / (bright.sum((1, 2)) + inside.sum((1, 2)))
    return 2 - energy - dice
