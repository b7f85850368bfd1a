"""What a data set is: images or bags with labels or masks, a patient and a site for each, held in memory."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.data.bag_checks import check_bags
from common.errors import DataError
from common.items import BAG_SIDE

Kind = Literal["images", "bags"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images of one or many sites, or bags of instances.

    Shapes: images uint8 or float32 [N, C, H, W] (uint8 stands for value/255; floats lie in [0, 1]); labels int64 [N]
    (class index) or uint8 [N, L] (one column per finding), or None; masks uint8 [N, H, W] (class index per pixel), or
    None; patients str [N]; sites int64 [N], an index into `site_names`; splits int8 [N] or None: an official division,
    0 train, 1 val, 2 test, which is kept. Of `kind` bags, images are float32 [N, 1 + F, T, 1] with features of any
    value, laid out as `common/items.py` tells, and there are no masks.

    A patient belongs to one site: equal names at two sites are two patients.
    """

    name: str
    images: NDArray[np.uint8] | NDArray[np.float32]
    patients: NDArray[np.str_]
    sites: NDArray[np.int64]
    site_names: tuple[str, ...]
    labels: NDArray[np.int64] | NDArray[np.uint8] | None = None
    masks: NDArray[np.uint8] | None = None
    splits: NDArray[np.int8] | None = None
    classes: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()
    licence: str = ""
    kind: Kind = "images"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """How many channels each image has: 1 (grey) or 3 (colour); of a bag one more than an instance's features."""
        return int(self.images.shape[1])

    @property
    def side(self) -> int:
        """How many pixels wide each image is; BAG_SIDE where the data are bags."""
        return BAG_SIDE if self.kind == "bags" else int(self.images.shape[-1])

    @property
    def values(self) -> int:
        """How many numbers each item has, the channels of an image counted once."""
        return int(np.prod(self.images.shape[1:] if self.kind == "bags" else self.images.shape[2:]))

    def subset(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "Dataset":
        """Take the images at `index`, in that order; site names stay."""
        return replace(
            self,
            images=self.images[index],
            patients=self.patients[index],
            sites=self.sites[index],
            labels=None if self.labels is None else self.labels[index],
            masks=None if self.masks is None else self.masks[index],
            splits=None if self.splits is None else self.splits[index],
        )

    def batch(self, index: NDArray[np.integer], device: torch.device) -> "Batch":
        """Put the images at `index` on `device` as one batch, values in [-1, 1]; bags as they are."""
        images = torch.from_numpy(self.images[index]).to(device, non_blocking=True)
        scale = 2 / 255 if images.dtype == torch.uint8 else 2.0
        return Batch(
            images=images if self.kind == "bags" else images.float().mul_(scale).sub_(1),
            labels=None if self.labels is None else torch.from_numpy(self.labels[index]).to(device),
            masks=None if self.masks is None else torch.from_numpy(self.masks[index]).to(device),
        )

    def digest(self) -> str:
        """SHA-256 over everything that training or judging can see."""
        hash_ = hashlib.sha256(repr((self.name, self.site_names, self.classes, self.mask_classes)).encode())
        for array in (self.images, self.labels, self.masks, self.patients.astype("U"), self.sites, self.splits):
            if array is not None:
                hash_.update(f"{array.dtype.str}{array.shape}".encode())
                hash_.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return hash_.hexdigest()

    def check(self) -> "Dataset":
        """Return self, or say what is wrong.

        Raises:
            DataError: Wrong shape or dtype, values that are not finite or out of range, labels outside the classes,
                columns of unequal length, no image at all, a patient in two official splits.
        """
        (check_bags if self.kind == "bags" else check_images)(self.name, self.images)
        count = len(self.images)
        for column in ("labels", "masks", "patients", "sites", "splits"):
            array = getattr(self, column)
            if array is not None and len(array) != count:
                raise DataError(
                    f"{self.name}: {column} has {len(array)} rows and images has {count}. Every image needs exactly "
                    f"one; correct the archive or manifest."
                )
        if self.sites.min() < 0 or self.sites.max() >= len(self.site_names):
            raise DataError(
                f"{self.name}: site indices run from {self.sites.min()} to {self.sites.max()} and there are "
                f"{len(self.site_names)} site names. Name every site."
            )
        check_labels(self.name, self.labels, self.classes)
        if self.masks is not None:
            check_masks(self.name, self.masks, self.images.shape[2:], len(self.mask_classes))
        if self.splits is not None:
            check_splits(self.name, self.splits, self.patients, self.sites)
        return self


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch on a device.

    Shapes: images float32 [B, C, H, W] in [-1, 1], or bags [B, 1 + F, T, 1]; labels int64 [B] or uint8 [B, L] or None;
    masks uint8 [B, H, W] or None.
    """

    images: Tensor
    labels: Tensor | None
    masks: Tensor | None


def check_images(name: str, images: NDArray[np.generic]) -> None:
    """Refuse images that are not [N, 1 or 3, H, W], uint8 or finite float32 in [0, 1].

    Raises:
        DataError: As said.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"{name}: images have shape {images.shape}. Allowed is [N, C, H, W] with C = 1 (grey) or 3 (colour)."
        )
    if len(images) == 0:
        raise DataError(f"{name}: there is no image. Check `data.path`, `data.classes` and the site names.")
    if images.dtype not in (np.uint8, np.float32):
        raise DataError(f"{name}: images have dtype {images.dtype}. Allowed are uint8 and float32 in [0, 1].")
    if images.dtype == np.float32:
        if not np.isfinite(images).all():
            bad = int((~np.isfinite(images)).any(axis=(1, 2, 3)).sum())
            raise DataError(f"{name}: {bad} images hold NaN or infinite pixels. Repair or leave out these images.")
        if images.min() < 0 or images.max() > 1:
            raise DataError(
                f"{name}: pixel values run from {images.min():.4g} to {images.max():.4g}. Allowed is [0, 1]; rescale."
            )


def check_labels(name: str, labels: NDArray[np.generic] | None, classes: tuple[str, ...]) -> None:
    """Refuse labels outside the classes.

    Raises:
        DataError: As said.
    """
    if labels is None:
        return
    if labels.ndim == 1:
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"{name}: labels have dtype {labels.dtype}. Allowed are integers (a class index).")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(classes):
            raise DataError(
                f"{name}: labels run from {low} to {high} and there are {len(classes)} classes "
                f"({', '.join(classes) or 'none named'}). Allowed is 0 to {len(classes) - 1}."
            )
    elif labels.ndim != 2 or labels.shape[1] != len(classes) or not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"{name}: multi-label labels have shape {labels.shape} for {len(classes)} classes. Allowed is [N, "
            f"{len(classes)}] of 0 and 1."
        )


def check_masks(name: str, masks: NDArray[np.generic], size: tuple[int, ...], classes: int) -> None:
    """Refuse masks of another size than the images, or with values outside the mask classes.

    Raises:
        DataError: As said.
    """
    if masks.ndim != 3 or masks.shape[1:] != tuple(size):
        raise DataError(f"{name}: masks have shape {masks.shape}; images are {tuple(size)}. Both need the same size.")
    if masks.dtype != np.uint8:
        raise DataError(f"{name}: masks have dtype {masks.dtype}. Allowed is uint8 (a class index per pixel).")
    if int(masks.max()) >= max(classes, 2):
        raise DataError(f"{name}: masks hold the value {masks.max()}. Allowed is 0 to {max(classes, 2) - 1}.")


def check_splits(name: str, splits: NDArray[np.int8], patients: NDArray[np.str_], sites: NDArray[np.int64]) -> None:
    """Refuse an official division that is not 0, 1, 2, or that puts one patient on two sides.

    Raises:
        DataError: As said; counts patients, names none.
    """
    if not np.isin(splits, (0, 1, 2)).all():
        raise DataError(
            f"{name}: the split column holds {', '.join(map(str, np.unique(splits)[:8]))}. Allowed is 0 (train), "
            f"1 (val) and 2 (test)."
        )
    where: dict[tuple[int, str], int] = {}
    torn = {
        key
        for key, split in zip(zip(sites.tolist(), patients.tolist(), strict=True), splits.tolist(), strict=True)
        if where.setdefault(key, split) != split
    }
    if torn:
        raise DataError(
            f"{name}: {len(torn)} of {len(where)} patients stand in two splits. Every patient belongs to one; correct "
            f"the split column, or leave it out and Consilium divides by patient."
        )


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """Put data sets of the same kind one after the other; names and classes are those of the first."""

    def join(column: str) -> Any:
        arrays = [getattr(dataset, column) for dataset in datasets]
        return None if arrays[0] is None else np.concatenate(arrays)

    return replace(
        datasets[0],
        images=join("images"),
        labels=join("labels"),
        masks=join("masks"),
        splits=join("splits"),
        patients=join("patients"),
        sites=join("sites"),
    )
