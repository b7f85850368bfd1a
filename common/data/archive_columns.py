"""The arrays of an archive, each brought to the form that `Dataset` wants."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.choose import column, indices
from common.data.npz import Arrays
from common.data.sidecar import Sidecar, short_names
from common.errors import DataError


def images_of(source: str, images: NDArray[Any]) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Bring images [N, H, W] or [N, H, W, 3] to [N, C, H, W], uint8 or float32.

    Raises:
        DataError: More axes than a volume has, or integers wider than uint8.
    """
    colour = images.ndim == 4 and images.shape[-1] in (1, 3)
    if images.ndim >= 4 and not colour:
        raise DataError(
            f"{source}: images have shape {images.shape}. Allowed are [N, H, W] (grey), [N, H, W, 3] (colour) and "
            f"[N, D, H, W] (volumes, taken slice by slice)."
        )
    if images.ndim < 3 or 0 in images.shape[1:]:
        raise DataError(f"{source}: images have shape {images.shape}. Allowed are [N, H, W] and [N, H, W, 3].")
    if images.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused by `check`
            images = images.astype(np.float32, copy=False)
    elif images.dtype != np.uint8:
        raise DataError(
            f"{source}: images have dtype {images.dtype}. Allowed are uint8 and floats in [0, 1]; rescale them, for "
            f"example between the 0.5 and 99.5 percentiles of each image."
        )
    return np.ascontiguousarray(np.moveaxis(images, -1, 1) if colour else images[:, None])


def labels_of(arrays: Arrays, sidecar: Sidecar, setting: str) -> tuple[NDArray[Any] | None, tuple[str, ...]]:
    """Give labels int64 [N] (negative: unknown) or uint8 [N, L], and the class names; `auto` without labels gives none.

    Raises:
        DataError: No such array, or neither integers nor text.
    """
    if setting == "auto" and "labels" not in arrays:
        return None, ()
    name = "labels" if setting == "auto" else setting
    values = column(arrays, "label", name)
    classes = sidecar.names("classes" if name == "labels" else name)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.dtype.kind in "iub":
        classes = classes or tuple(str(index) for index in range(values.shape[1]))
        return values.astype(np.uint8) if np.isin(values, (0, 1)).all() else values, classes
    return indices(values, classes, f"{sidecar.source}: array {name!r}")


def masks_of(arrays: Arrays, sidecar: Sidecar, name: str) -> tuple[NDArray[np.uint8] | None, tuple[str, ...]]:
    """Give masks uint8 [N, H, W] and the names of their values; none where the default array is absent.

    Raises:
        DataError: No such array, or other values than 0 to 255.
    """
    if name == "masks" and name not in arrays:
        return None, ()
    values = column(arrays, "mask", name)
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or values.dtype.kind not in "iub" or values.min(initial=0) < 0 or values.max(initial=0) > 255:
        raise DataError(
            f"{sidecar.source}: array {name!r} has shape {values.shape} and dtype {values.dtype}. Allowed are class "
            f"indices 0 to 255, [N, H, W]."
        )
    masks = binary_mask(values.astype(np.uint8, copy=False))
    classes = sidecar.names("mask_classes" if name == "masks" else name) or default_mask_classes(masks)
    return masks, classes


def binary_mask(masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Read masks of nothing but 0 and 255 as 0 and 1: the usual way of drawing a binary mask."""
    return masks // 255 if masks.size and masks.max() == 255 and not ((masks > 0) & (masks < 255)).any() else masks


def default_mask_classes(masks: NDArray[np.uint8]) -> tuple[str, ...]:
    """Name mask values that nobody named."""
    highest = int(masks.max(initial=1))
    return ("background", "foreground") if highest == 1 else tuple(str(index) for index in range(highest + 1))


def sites_of(path: Path, arrays: Arrays, sidecar: Sidecar, count: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Give the site of each image, int64 [N], and short site names; without a centre array the file is the one site.

    Raises:
        DataError: Neither integers nor text.
    """
    if "centre" not in arrays:
        return np.zeros(count, dtype=np.int64), (path.stem,)
    names = sidecar.names("centres")
    if not names and arrays["centre"].dtype.kind in "iu":
        names = tuple(f"centre-{index}" for index in range(min(int(arrays["centre"].max(initial=0)) + 1, 2**16)))
    sites, names = indices(arrays["centre"], names, f"{path.name}: array 'centre'")
    return sites, short_names(names)


def splits_of(source: str, values: NDArray[Any] | None) -> NDArray[np.int8] | None:
    """Give the official division, if there is one.

    Raises:
        DataError: Other values than 0, 1 and 2.
    """
    if values is None:
        return None
    if values.ndim != 1 or values.dtype.kind not in "iu" or not np.isin(values, (0, 1, 2)).all():
        raise DataError(
            f"{source}: array 'split' has dtype {values.dtype}, shape {values.shape} or other values than 0 (train), 1 "
            f"(val), 2 (test). Correct it, or leave it out and Consilium divides by patient."
        )
    return values.astype(np.int8)
