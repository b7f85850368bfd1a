"""What a model is fed, one after another: images, or bags of instances, each instance a row of features.

A bag is laid out as an image is, so that it travels every road of an image: [1 + F, T, 1], an instance per row. The
first channel is the mark, 1 where an instance is real and 0 where the bag is filled up; the others are its F features.
"""

import torch
from torch import Tensor

from common.errors import ConfigError

BAG_SIDE = 0
"""What stands for the side of an image where the data are bags, which have none."""


def are_bags(image_size: int) -> bool:
    """Say whether items with this side are bags."""
    return image_size == BAG_SIDE


def item_shape(channels: int, image_size: int, instances: int) -> tuple[int, int, int]:
    """Give the shape of one item: [channels, side, side], or [1 + F, instances, 1] of a bag."""
    return (channels, instances, 1) if are_bags(image_size) else (channels, image_size, image_size)


def noise(shape: tuple[int, int, int, int], random: torch.Generator) -> Tensor:
    """Draw items that show nothing, even in [-1, 1]; of a bag about every second instance is real. [B, *shape]."""
    return torch.rand(shape, generator=random) * 2 - 1


def instances_of(bags: Tensor) -> tuple[Tensor, Tensor]:
    """Take bags apart into features and which of them are real. Shapes: [B, 1 + F, T, 1] -> [B, T, F], bool [B, T]."""
    rows = bags.flatten(2).transpose(1, 2)
    return rows[..., 1:], rows[..., 0] > 0


def side_of(items: Tensor) -> int:
    """Give the side of a batch's items. Shapes: [B, C, side, side], or [B, 1 + F, T, 1] -> BAG_SIDE."""
    return BAG_SIDE if items.shape[-1] == 1 else int(items.shape[-1])


def need_images(what: str, image_size: int) -> None:
    """Refuse bags where something is done to pixels or shown on them.

    Raises:
        ConfigError: `what` (a setting or command, as the user knows it) meets bags.
    """
    if are_bags(image_size):
        raise ConfigError(
            f"{what} works on pixels, and the data are bags of instances, which have none. Allowed are data sets of "
            f"images; turn it off, or choose another `data.name`."
        )
