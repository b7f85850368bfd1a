"""The image and mask files of a manifest, brought to one size and one kind."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.config import DataSection
from common.data.archive_columns import binary_mask
from common.data.choose import column
from common.data.listing import Listing
from common.data.manifest import check_filled, check_no_duplicates, files_of
from common.data.picture import Image, read_image, read_mask
from common.data.resize import fit_images, fit_masks
from common.data.thin import evenly
from common.errors import DataError


@dataclass(frozen=True, slots=True)
class _Loader:
    """Reads files to one size; `side` 0 asks that all have the same. Of a volume `most` slices stay; 0 keeps all."""

    side: int
    most: int
    window: tuple[float, float] | None

    def image(self, file: Path, where: str) -> tuple[Image, tuple[int, ...]]:
        """Give the images of a file [slices, C, side, side] and their (slices, H, W) as stored."""
        raw = read_image(file, where, self.window)
        return fit_images(raw[evenly(len(raw), self.most)], self.side), (len(raw), *raw.shape[2:])

    def mask(self, file: Path, where: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Give the masks of a file [slices, side, side].

        Raises:
            DataError: Another size than the image.
        """
        raw = read_mask(file, where)
        if raw.shape != shape:
            raise DataError(
                f"{where}: the mask is {_size(raw.shape)} and the image {_size(shape)}. Both need the same size."
            )
        return fit_masks(binary_mask(raw)[evenly(len(raw), self.most)], self.side)


def read_files(
    listing: Listing, rows: NDArray[np.int64], settings: DataSection
) -> tuple[Image, NDArray[np.uint8] | None, NDArray[np.int64]]:
    """Read the images and masks of some rows of a listing; no other file is looked for.

    Returns:
        Images [N, C, H, W], masks [N, H, W] or none, and for each image the position in `rows` that it came from (a
        volume gives one image per slice).

    Raises:
        DataError: A file that is missing, damaged or not allowed, a mask of another size than its image, or images of
            several sizes and no `data.image-size`.
    """
    manifest = listing.manifest
    files = files_of(manifest, "image", listing.table["image"], rows)
    check_no_duplicates(manifest, files)
    mask_files = _mask_files(listing, rows, settings.mask)
    loader = _Loader(settings.image_size, settings.max_images_per_patient, listing.window)
    images, masks, sizes = [], [], set()
    for index, row in enumerate(rows.tolist()):
        where = f"{manifest.name}, row {row + 1}"
        image, shape = loader.image(files[index], where)
        images.append(image)
        sizes.add(image.shape[2:])
        if mask_files is not None:
            masks.append(loader.mask(mask_files[index], where, shape))
    if not images:
        raise DataError(f"{manifest.name}: no row has a class of data.classes ({settings.classes}). Check its names.")
    if len(sizes) > 1:
        listed = ", ".join(sorted(map(_size, sizes))[:5])
        raise DataError(
            f"{manifest.name}: images have {len(sizes)} sizes ({listed}). Set data.image-size to bring all to one."
        )
    owner = np.repeat(np.arange(len(images)), [len(image) for image in images])
    return _stacked(images), np.concatenate(masks) if masks else None, owner


def _mask_files(listing: Listing, rows: NDArray[np.int64], setting: str) -> list[Path] | None:
    name = setting if setting in listing.table or setting != "masks" else "mask"
    if name == "mask" and name not in listing.table:
        return None
    cells = column(listing.table, "mask", name)
    check_filled(listing.manifest, name, cells)
    return files_of(listing.manifest, name, cells, rows)


def _stacked(images: list[Image]) -> Image:
    """Put images together: colour if one is, floats if one is deeper than 8 bits."""
    shape = (sum(map(len, images)), max(image.shape[1] for image in images), *images[0].shape[2:])
    whole = all(image.dtype == np.uint8 for image in images)
    result: Image = np.empty(shape, dtype=np.uint8) if whole else np.empty(shape, dtype=np.float32)
    start = 0
    for image in images:
        deeper = image if whole or image.dtype == np.float32 else image / np.float32(255)
        result[start : start + len(image)] = deeper
        start += len(image)
    return result


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
