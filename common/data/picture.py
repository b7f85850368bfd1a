"""One image file of a hospital: PNG and JPEG through MONAI's Pillow reader, NIfTI through its nibabel reader."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError

PILLOW = (".png", ".jpg", ".jpeg")
NIFTI = (".nii", ".nii.gz")
EIGHT_BIT = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB"}
"""Pillow's modes and what they become; other modes hold 16 bits or more."""
LOW, HIGH = 0.5, 99.5
Image = NDArray[np.uint8] | NDArray[np.float32]


def read_image(path: Path, where: str, window: tuple[float, float] | None = None) -> Image:
    """Read the images of a file: one, or every axial slice of a volume.

    8-bit pixels stay. Deeper ones are scaled to [0, 1] between the 0.5 and 99.5 percentiles of the file, beyond which
    they are clipped. Slices are seen from the feet, as radiologists do: the patient's right is left, front is up.

    Args:
        path: PNG, JPEG or NIfTI.
        where: The row of the manifest, for messages.
        window: Scales deeper pixels from this range, in their own unit, instead.

    Shapes: uint8 or float32 [slices, C, H, W].

    Raises:
        DataError: Another format, a damaged file, pixels that are not finite, or more than three dimensions.
    """
    values = _read(path, where, mask=False)
    if values.dtype == np.uint8:
        return values
    if not np.isfinite(values).all():
        raise DataError(f"{where}: the image holds NaN or infinite pixels. Repair or leave out this row.")
    return _windowed(values.astype(np.float64, copy=False)) if window is None else _cut(values, *window)


def read_mask(path: Path, where: str) -> NDArray[np.uint8]:
    """Read the mask of a file: whole numbers 0 to 255, or nothing but 0 and 255 for 0 and 1.

    Shapes: uint8 [slices, H, W].

    Raises:
        DataError: A JPEG (whose loss changes classes), colours, or other values.
    """
    if _suffix(path) in (".jpg", ".jpeg"):
        raise DataError(f"{where}: the mask is a JPEG, whose compression changes classes. Allowed are PNG and NIfTI.")
    values = _read(path, where, mask=True)
    if (values != values[:, :1]).any():
        raise DataError(f"{where}: the mask is in colour. Allowed is one channel whose value is the class.")
    values = values[:, 0]
    if not ((values >= 0) & (values <= 255) & (values == np.floor(values))).all():
        raise DataError(f"{where}: the mask holds other values than the whole numbers 0 to 255. Write class indices.")
    return values.astype(np.uint8)


def _read(path: Path, where: str, *, mask: bool) -> NDArray[Any]:
    suffix = _suffix(path)
    if suffix not in PILLOW + NIFTI:
        raise DataError(
            f"{where}: the file is of type {suffix or 'none'}. Allowed are {', '.join(PILLOW + NIFTI)}; convert it, "
            f"DICOM for example with dcm2niix."
        )
    try:
        values = _read_pillow(path, mask=mask) if suffix in PILLOW else _read_nifti(path)
    except Exception as error:  # Pillow, nibabel, gzip and zlib raise a dozen kinds of error on damaged bytes
        raise DataError(
            f"{where}: the file cannot be read as an image ({type(error).__name__}). It may be damaged; copy it anew."
        ) from None
    if values.ndim != 4:
        raise DataError(f"{where}: the file has {values.ndim - 1} dimensions. Allowed are images and volumes.")
    if 0 in values.shape:
        raise DataError(f"{where}: the image is empty. Leave out this row.")
    return values


def _read_pillow(path: Path, *, mask: bool) -> NDArray[Any]:
    from monai.data.image_reader import PILReader  # takes seconds

    reader = PILReader(_loaded_mask if mask else _loaded, reverse_indexing=False, formats=("PNG", "JPEG"))
    values = np.array(reader.get_data(reader.read(path))[0])  # a copy: Pillow's own is read-only
    values = values.astype(np.uint8) if values.dtype == bool else values
    return np.moveaxis(values, -1, 0)[None] if values.ndim == 3 else values[None, None]


def _loaded(image: Any) -> Any:
    """Decode while the file is open, turn it as the camera was held, and bring 8-bit modes to grey or RGB."""
    from PIL.ImageOps import exif_transpose

    with image:
        turned = exif_transpose(image)
        return turned.convert(EIGHT_BIT[turned.mode]) if turned.mode in EIGHT_BIT else turned.copy()


def _loaded_mask(image: Any) -> Any:
    """Decode as `_loaded`, but keep the indices of a palette and drop transparency."""
    from PIL.ImageOps import exif_transpose

    with image:
        turned = exif_transpose(image)
        return turned.convert(EIGHT_BIT[turned.mode]) if turned.mode in ("LA", "RGBA", "CMYK") else turned.copy()


def _read_nifti(path: Path) -> NDArray[Any]:
    """Read [slices, 1, rows, columns] in canonical orientation (x to the right, y to the front, z to the head)."""
    import nibabel
    from monai.data.image_reader import NibabelReader

    volume = NibabelReader().read(path)
    values = np.asarray(volume.dataobj)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim > 3:
        return values[None]
    values = values.reshape(values.shape + (1,) * (3 - values.ndim))
    turn: Any = nibabel.orientations
    canonical: NDArray[Any] = turn.apply_orientation(
        values.astype(np.float64, copy=False), turn.io_orientation(volume.affine)
    )
    return canonical[::-1, ::-1].transpose(2, 1, 0)[:, None]


def _windowed(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale between the percentiles; between the extremes where nearly all pixels are equal; equal pixels become 0."""
    values = values / 2  # so that no range overflows
    low, high = np.percentile(values, [LOW, HIGH])
    if high <= low:
        low, high = values.min(), values.max()
    if high <= low:
        return np.zeros(values.shape, dtype=np.float32)
    scaled: NDArray[np.float32] = ((values.clip(low, high) - low) / (high - low)).clip(0, 1).astype(np.float32)
    return scaled


def _cut(values: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Scale from a range that is known, clipped beyond it."""
    cut = np.clip(values, low, high, dtype=np.float32, casting="unsafe")
    cut -= np.float32(low)
    cut /= np.float32(high - low)
    result: NDArray[np.float32] = cut
    return result


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
