"""Where the object lies in the image. Masks are not moved along: for classification only."""

import numpy as np
from scipy.ndimage import affine_transform

from simulations.corruptions.corrupt import Corruption, Image

Generator = np.random.Generator


def rotation(image: Image, degrees: float, rng: Generator) -> Image:
    """Turn about the centre, to a side that is drawn; what comes in from outside repeats the edge."""
    angle = np.deg2rad(degrees) * rng.choice([-1, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return _moved(image, turn, np.zeros(2))


def crop(image: Image, share: float, rng: Generator) -> Image:
    """Show only this share of each side, about a place that is drawn, as large as the whole was."""
    room = (1 - share) / 2
    shift = rng.uniform(-1, 1, 2) * room * image.shape[-2:]
    return _moved(image, np.eye(2) * share, shift)


def _moved(image: Image, matrix: np.ndarray, shift: np.ndarray) -> Image:
    centre = (np.array(image.shape[-2:]) - 1) / 2
    offset = centre - matrix @ centre + shift
    return np.stack([affine_transform(each, matrix, offset, order=1, mode="nearest") for each in image]).astype(
        np.float32
    )


ROTATION = Corruption(rotation, (5.0, 10.0, 17.0, 25.0, 35.0), "geometry")
CROP = Corruption(crop, (0.92, 0.84, 0.75, 0.66, 0.57), "geometry")
