"""Noise of detectors and receivers. The parameter is its strength relative to white."""

import numpy as np

from common.data.phantom_physics import rician_noise
from simulations.corruptions.corrupt import Corruption, Image

Generator = np.random.Generator


def gaussian(image: Image, strength: float, rng: Generator) -> Image:
    """Add white noise of this standard deviation: amplifiers."""
    return image + np.float32(strength) * rng.standard_normal(image.shape, dtype=np.float32)


def shot(image: Image, strength: float, rng: Generator) -> Image:
    """Count photons, of which white makes 1/strength²; the normal law of as many, so that draws do not depend on it."""
    return image + np.float32(strength) * np.sqrt(image) * rng.standard_normal(image.shape, dtype=np.float32)


def rician(image: Image, strength: float, rng: Generator) -> Image:
    """Take the magnitude of a complex signal with noise in both parts (Gudbjartsson and Patz 1995)."""
    return np.asarray(rician_noise(image[None], strength, rng)[0])


def speckle(image: Image, strength: float, rng: Generator) -> Image:
    """Multiply by noise: coherent echoes."""
    return image * (1 + np.float32(strength) * rng.standard_normal(image.shape, dtype=np.float32))


def impulse(image: Image, share: float, rng: Generator) -> Image:
    """Turn this share of the pixels black or white, in all channels."""
    where, white = rng.random((2, *image.shape[1:]))
    return np.where(where < share, np.float32(1) * (white < 0.5), image).astype(np.float32)


GAUSSIAN = Corruption(gaussian, (0.03, 0.06, 0.1, 0.15, 0.22), "noise")
SHOT = Corruption(
    shot, (0.05, 0.1, 0.16, 0.24, 0.35), "noise", frozenset({"ct", "xray", "dermoscopy", "fundus", "microscopy"})
)
RICIAN = Corruption(rician, (0.04, 0.08, 0.12, 0.18, 0.26), "noise", frozenset({"mri"}))
SPECKLE = Corruption(speckle, (0.1, 0.18, 0.28, 0.4, 0.55), "noise", frozenset({"ultrasound", "xray"}))
IMPULSE = Corruption(impulse, (0.01, 0.03, 0.06, 0.1, 0.16), "noise")
