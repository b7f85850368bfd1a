"""Bringing images to one orientation, so that the attention maps of sites that store them turned or mirrored add up."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.base import Dataset
from common.items import need_images

Turn = Callable[[NDArray[Any]], NDArray[Any]]

TURNS: dict[str, Turn] = {
    "as-is": lambda array: array,
    "flip-lr": lambda array: array[..., ::-1],
    "flip-ud": lambda array: array[..., ::-1, :],
    "rot90": lambda array: np.rot90(array, 1, (-2, -1)),
    "rot180": lambda array: np.rot90(array, 2, (-2, -1)),
    "rot270": lambda array: np.rot90(array, 3, (-2, -1)),
    "transpose": lambda array: np.swapaxes(array, -2, -1),
    "transverse": lambda array: np.swapaxes(np.rot90(array, 2, (-2, -1)), -2, -1),
}
"""What must be done to an image as it is stored; rotations go counter-clockwise. The eight symmetries of a square."""


def oriented(dataset: Dataset, orientation: str) -> Dataset:
    """Give the data set with images and masks turned.

    Args:
        dataset: Square images or not; a quarter turn exchanges the sides.
        orientation: A key of `TURNS`.

    Raises:
        ConfigError: The data are bags, and are to be turned.
    """
    if orientation == "as-is":
        return dataset
    need_images(f"'data.orientation' = {orientation!r}", dataset.side)
    turn = TURNS[orientation]
    masks = None if dataset.masks is None else np.ascontiguousarray(turn(dataset.masks))
    return replace(dataset, images=np.ascontiguousarray(turn(dataset.images)), masks=masks)
