"""Sharpness lost. Lengths are pixels of an image 64 pixels wide, so that a severity looks alike at every size."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve

from common.data.phantom_physics import REFERENCE_SIDE, psf_blur
from simulations.corruptions.corrupt import Corruption, Image

Generator = np.random.Generator
Grid = NDArray[np.float64]
Inside = Callable[[Grid, Grid, float], NDArray[np.bool_]]
"""From y, x and a reach to the points that lie in a shape."""
FINE = 8
"""Points to a pixel from which a kernel's area is counted."""


def gaussian(image: Image, sigma: float, rng: Generator) -> Image:
    """Blur by a Gaussian point-spread function."""
    return np.asarray(psf_blur(image[None], sigma, rng)[0])


def defocus(image: Image, radius: float, rng: Generator) -> Image:
    """Blur by a disk: a lens out of focus."""
    scale = min(image.shape[-2:]) / REFERENCE_SIDE
    return _convolved(image, _kernel(radius * scale, lambda y, x, r: np.hypot(y, x) <= r))


def motion(image: Image, length: float, rng: Generator) -> Image:
    """Blur along a line in a direction that is drawn: the patient, or the camera, moved."""
    angle = rng.uniform(0, np.pi)
    scale = min(image.shape[-2:]) / REFERENCE_SIDE

    def line(y: NDArray[np.float64], x: NDArray[np.float64], half: float) -> NDArray[np.bool_]:
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        return np.asarray((np.abs(along) <= half) & (np.abs(across) <= 0.5))

    return _convolved(image, _kernel(length * scale / 2, line))


def slice_thickness(image: Image, thickness: float, rng: Generator) -> Image:
    """Average over `thickness` rows: thick slices seen from the side, each with its neighbours' tissue in it."""
    rows = max(1.0, thickness * image.shape[-2] / REFERENCE_SIDE)
    kernel = _kernel(rows / 2, lambda y, x, half: (np.abs(y) <= half) & (np.abs(x) <= 0.5))
    return _convolved(image, kernel)


def _kernel(reach: float, inside: Inside) -> NDArray[np.float64]:
    """Give the share of each pixel that lies in a shape about the centre, summing to one."""
    side = int(np.ceil(reach)) * 2 + 1
    place = (np.arange(side * FINE) + 0.5) / FINE - side / 2
    fine = inside(place[:, None], place[None, :], max(reach, 0.5))
    kernel = fine.reshape(side, FINE, side, FINE).mean(axis=(1, 3))
    return np.asarray(kernel / kernel.sum())


def _convolved(image: Image, kernel: NDArray[np.float64]) -> Image:
    return np.stack([convolve(channel, kernel, mode="nearest") for channel in image]).astype(np.float32)


GAUSSIAN = Corruption(gaussian, (0.7, 1.0, 1.4, 2.0, 2.8), "blur")
DEFOCUS = Corruption(
    defocus, (0.8, 1.2, 1.8, 2.5, 3.5), "blur", frozenset({"xray", "dermoscopy", "fundus", "microscopy"})
)
MOTION = Corruption(motion, (2.0, 3.5, 5.0, 7.0, 10.0), "blur")
SLICE_THICKNESS = Corruption(slice_thickness, (2.0, 3.0, 4.5, 6.5, 9.0), "blur", frozenset({"mri", "ct"}))
