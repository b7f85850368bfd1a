"""Look-up tables, exposure and stain."""

import numpy as np

from common.data.phantom_physics import gamma as look_up
from simulations.corruptions.corrupt import COLOUR, Corruption, Image

Generator = np.random.Generator
DARKEST = np.float32(1 / 255)


def gamma(image: Image, power: float, rng: Generator) -> Image:
    """Pass through x ↦ x^power."""
    return np.asarray(look_up(image, power, rng))


def contrast(image: Image, factor: float, rng: Generator) -> Image:
    """Stretch or shrink about the mean of the image."""
    middle = image.mean()
    return np.asarray((image - middle) * np.float32(factor) + middle)


def brightness(image: Image, change: float, rng: Generator) -> Image:
    """Add a constant."""
    return image + np.float32(change)


def inversion(image: Image, share: float, rng: Generator) -> Image:
    """Show dark as bright: this share of the way from x to 1 − x."""
    return image + np.float32(share) * (1 - 2 * image)


def stain_shift(image: Image, strength: float, rng: Generator) -> Image:
    """Stain more or less in each colour: optical density times a drawn factor (Beer and Lambert)."""
    factors = np.exp(np.float32(strength) * rng.uniform(-1, 1, (3, 1, 1)).astype(np.float32))
    return np.asarray(np.exp(np.log(np.maximum(image, DARKEST)) * factors))


GAMMA_UP = Corruption(gamma, (1.25, 1.5, 1.9, 2.4, 3.0), "intensity")
GAMMA_DOWN = Corruption(gamma, (0.8, 0.66, 0.53, 0.42, 0.33), "intensity")
CONTRAST_UP = Corruption(contrast, (1.3, 1.6, 2.0, 2.6, 3.4), "intensity")
CONTRAST_DOWN = Corruption(contrast, (0.75, 0.58, 0.44, 0.32, 0.2), "intensity")
BRIGHTNESS_UP = Corruption(brightness, (0.08, 0.15, 0.23, 0.32, 0.42), "intensity")
BRIGHTNESS_DOWN = Corruption(brightness, (-0.08, -0.15, -0.23, -0.32, -0.42), "intensity")
INVERSION = Corruption(inversion, (0.6, 0.7, 0.8, 0.9, 1.0), "intensity", frozenset({"xray", "ct", "mri"}))
STAIN_SHIFT = Corruption(stain_shift, (0.2, 0.35, 0.55, 0.8, 1.1), "intensity", COLOUR, channels=3)
