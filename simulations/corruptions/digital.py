"""What storage and transfer do."""

from io import BytesIO

import numpy as np
from PIL import Image as Picture

from common.data.phantom_physics import resolution
from simulations.corruptions.corrupt import Corruption, Image

Generator = np.random.Generator


def jpeg(image: Image, quality: float, rng: Generator) -> Image:
    """Store as JPEG of this quality and read again; three channels as colours, others one by one."""
    whole = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    if len(whole) == 3:
        return _stored(whole.transpose(1, 2, 0), quality).transpose(2, 0, 1)
    return np.stack([_stored(channel, quality) for channel in whole])


def pixelate(image: Image, share: float, rng: Generator) -> Image:
    """Keep this share of the pixels of a side, and interpolate back."""
    return np.asarray(resolution(image[None], share, rng)[0])


def _stored(pixels: np.ndarray, quality: float) -> Image:
    stream = BytesIO()
    Picture.fromarray(pixels).save(stream, "JPEG", quality=round(quality))
    with Picture.open(stream) as found:
        return np.asarray(found, np.float32) / np.float32(255)


JPEG = Corruption(
    jpeg,
    (50.0, 30.0, 18.0, 10.0, 5.0),
    "digital",
    frozenset({"ultrasound", "dermoscopy", "fundus", "microscopy", "xray"}),
)
PIXELATE = Corruption(pixelate, (0.7, 0.55, 0.42, 0.32, 0.24), "digital")
