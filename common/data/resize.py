"""Images and masks to one square size."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from common.data.base import Dataset

PIXELS_AT_ONCE = 2**22
Array = TypeVar("Array", bound=NDArray[np.uint8] | NDArray[np.float32])


def fit(dataset: Dataset, size: int) -> Dataset:
    """Bring a data set to square images of `size` pixels a side; 0 keeps the longer side.

    Images that are not square are first padded with black, equally at both ends.
    """
    return replace(
        dataset,
        images=fit_images(dataset.images, size),
        masks=None if dataset.masks is None else fit_masks(dataset.masks, size),
    )


def fit_images(images: NDArray[np.uint8] | NDArray[np.float32], size: int) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Shrink by the mean over the pixels covered, enlarge bilinearly: no aliasing either way.

    Shapes: uint8 or float32 [N, C, H, W] -> the same dtype [N, C, size, size].
    """
    images = pad_to_square(images)
    size = size or images.shape[-1]
    if images.shape[-1] == size:
        return images
    result = np.empty((*images.shape[:2], size, size), dtype=images.dtype)
    step = _step(images)
    for start in range(0, len(images), step):
        scaled = _scale(torch.from_numpy(images[start : start + step]).float(), size).numpy()
        result[start : start + step] = scaled.clip(0, 1) if images.dtype == np.float32 else np.floor(scaled + 0.5)
    return result


def fit_masks(masks: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Give each new pixel the class that covers most of it; a tie goes to the lower class.

    Shapes: uint8 [N, H, W] -> uint8 [N, size, size].
    """
    masks = pad_to_square(masks)
    size = size or masks.shape[-1]
    if masks.shape[-1] == size:
        return masks
    result = np.empty((len(masks), size, size), dtype=np.uint8)
    classes = np.unique(masks).tolist()
    step = _step(masks)
    for start in range(0, len(masks), step):
        part = torch.from_numpy(masks[start : start + step])[:, None]
        best = torch.full((len(part), 1, size, size), -1.0)
        winner = torch.zeros_like(best, dtype=torch.uint8)
        for index in classes:
            share = _scale((part == index).float(), size)
            winner[share > best] = index
            best = torch.maximum(best, share)
        result[start : start + step] = winner[:, 0].numpy()
    return result


def pad_to_square(array: Array) -> Array:
    """Pad the shorter of the last two axes with zeros, equally at both ends (the odd pixel at the end)."""
    height, width = array.shape[-2:]
    if height == width:
        return array
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    margins = [(0, 0)] * (array.ndim - 2) + [(top, side - height - top), (left, side - width - left)]
    padded: Array = np.pad(array, margins)  # type: ignore[assignment]
    return padded


def _scale(images: Tensor, size: int) -> Tensor:
    """Scale square images; sums of whole numbers are exact in float32, so uint8 shrinks alike on every machine."""
    if size < images.shape[-1]:
        return functional.interpolate(images, size=(size, size), mode="area")
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def _step(array: NDArray[np.uint8] | NDArray[np.float32]) -> int:
    return max(1, PIXELS_AT_ONCE // max(1, int(np.prod(array.shape[1:]))))
