"""Things that lie over the object: air, hair, rulers, the edge of a lens. The parameter says how much of them."""

import numpy as np
from numpy.typing import NDArray

from simulations.corruptions.corrupt import Corruption, Image

Generator = np.random.Generator
MOST_BUBBLES, MOST_HAIRS = 12, 24


def bubble(image: Image, share: float, rng: Generator) -> Image:
    """Air under the cover slip: bright disks with a dark rim; this share of twelve places."""
    y, x = _plane(image)
    out = image
    draws = rng.uniform(0, 1, (MOST_BUBBLES, 3))
    for down, along, size in draws[: round(share * MOST_BUBBLES)]:
        away = np.hypot(y - down, x - along) / (0.03 + 0.07 * size)
        out = np.where(away <= 0.85, 0.35 * out + 0.65, np.where(away <= 1, 0.4 * out, out))
    return out.astype(np.float32)


def hair(image: Image, share: float, rng: Generator) -> Image:
    """Dark curved hairs; this share of twenty-four."""
    y, x = _plane(image)
    out = image
    draws = rng.uniform(0, 1, (MOST_HAIRS, 4))
    width = 0.6 / min(image.shape[-2:])
    for angle, place, bend, tone in draws[: round(share * MOST_HAIRS)]:
        turn = np.pi * angle
        along = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn)
        across = (y - 0.5) * np.cos(turn) - (x - 0.5) * np.sin(turn)
        cover = np.exp(-0.5 * ((across - (place - 0.5) - (bend - 0.5) * along**2) / width) ** 2)
        out = out * (1 - cover) + (0.05 + 0.15 * tone) * cover
    return out.astype(np.float32)


def ruler(image: Image, share: float, rng: Generator) -> Image:
    """A white strip with black ticks along one side, this share of the image wide."""
    side = int(rng.integers(4))
    turned = np.rot90(image, side, (1, 2)).copy()
    rows = max(1, round(share * turned.shape[1]))
    ticks = (np.arange(turned.shape[2]) % max(3, turned.shape[2] // 16)) == 0
    turned[:, -rows:] = np.where(ticks, np.float32(0.1), np.float32(0.95))
    return np.ascontiguousarray(np.rot90(turned, -side, (1, 2)))


def black_corner(image: Image, radius: float, rng: Generator) -> Image:
    """Black outside a circle about the centre, this many half sides wide: the edge of a lens."""
    y, x = _plane(image)
    return np.where(np.hypot(2 * y - 1, 2 * x - 1) <= radius, image, np.float32(0)).astype(np.float32)


def _plane(image: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give y and x of the pixels' centres, from 0 to 1."""
    height, width = image.shape[-2:]
    y, x = np.mgrid[:height, :width]
    return (y + 0.5) / height, (x + 0.5) / width


BUBBLE = Corruption(bubble, (0.17, 0.34, 0.5, 0.75, 1.0), "artefact", frozenset({"microscopy", "dermoscopy"}))
HAIR = Corruption(hair, (0.13, 0.25, 0.42, 0.67, 1.0), "artefact", frozenset({"dermoscopy"}))
RULER = Corruption(ruler, (0.06, 0.1, 0.14, 0.19, 0.25), "artefact", frozenset({"dermoscopy", "xray", "ultrasound"}))
BLACK_CORNER = Corruption(black_corner, (1.25, 1.15, 1.05, 0.95, 0.85), "artefact", frozenset({"dermoscopy", "fundus"}))
