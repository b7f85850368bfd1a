"""Painting soft-edged ellipses on many images at once.

An ellipse is five numbers (x, y, rx, ry, angle in radians) in coordinates from -1 to 1 across the nominal field of
view, x to the right and y down. A radius of 0 means absent. A warp bends the plane, so ellipses become organs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.phantom_physics import plane

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
"""Sums of products: their rounding depends on the number of threads, what is made of them in single precision not."""

WAVES = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (3, 0), (0, 3), (3, 2), (2, -3))
"""Wave numbers (across, down) of the warp, in half periods per image side; each has a sine and a cosine."""
WARP_TERMS = 3 + 2 * len(WAVES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One coat of paint: the union of K ellipses on each of N images.

    Shapes: ellipses float32 [N, K, 5]; value float32 [N], the grey it takes.
    """

    name: str
    ellipses: Floats
    value: Floats
    inside: str = ""
    """An earlier layer that this one may not leave; empty lets it."""
    softness: float | Floats = 1.0
    """Width of the edge in pixels; one for all or float32 [N]."""


def warped_plane(size: int, affine: Floats, bends: Floats) -> Doubles:
    """Give the monomials x², xy, y², x, y, 1 of every pixel's place in the body.

    Shapes: affine [N, 2, 3] (constant, x, y to place), bends [N, 2, 2·waves] -> [N, 6, size²].
    """
    place = np.concatenate([affine, bends], axis=2) @ _warp_basis(size)
    x, y = place[:, 0], place[:, 1]
    return np.stack([x * x, x * y, y * y, x, y, np.ones_like(x)], axis=1)


def coverage(quadratics: Doubles, monomials: Doubles) -> Floats:
    """Say how much of each pixel the union of K shapes covers, 0 to 1, linear across the edge.

    Shapes: quadratics [N, K, 6], monomials [N, 6, P] -> [N, P].
    """
    joined: Floats = (quadratics @ monomials).max(axis=1).astype(np.float32)
    return np.clip(joined, 0, 1, out=joined)


def quadratics(layer: Layer, pixel: float) -> Doubles:
    """Turn ellipses into quadratics: 1/2 on the outline, rising inwards by 1 across the soft edge (never if absent).

    With q = 1 on the outline, q − 1 ≈ 2d/r at distance d, hence 1/2 + (1 − q) · r / (2 · edge) with the smaller r.
    `pixel` is the side of a pixel in the body's coordinates.

    Shapes: to [N, K, 6], for the monomials of `warped_plane`.
    """
    x, y, rx, ry, angle = np.moveaxis(layer.ellipses.astype(np.float64), -1, 0)
    edge = np.reshape(layer.softness, (-1, 1)) * pixel
    absent = (rx <= 0) | (ry <= 0)
    along, across = 1 / np.where(absent, 1, rx) ** 2, 1 / np.where(absent, 1, ry) ** 2
    cosine, sine = np.cos(angle), np.sin(angle)
    xx = cosine**2 * along + sine**2 * across
    xy = 2 * cosine * sine * (along - across)
    yy = sine**2 * along + cosine**2 * across
    quadratic = [xx, xy, yy, -(2 * xx * x + xy * y), -(xy * x + 2 * yy * y), xx * x**2 + xy * x * y + yy * y**2 - 1]
    steep = np.where(absent, 0, np.minimum(rx, ry) / (2 * edge))
    result = np.stack(quadratic, axis=-1) * -steep[..., None]
    result[..., 5] += np.where(absent, -1, 0.5)
    return result


class Painter:
    """Paints the same layers one over another, for any part of their images at a time."""

    def __init__(self, layers: Sequence[Layer], pixel: float, background: float) -> None:
        self._layers = [(layer, quadratics(layer, pixel)) for layer in layers]
        self._walls = {layer.inside for layer in layers}
        self._background = background

    def paint(self, part: slice, monomials: Doubles) -> tuple[Floats, NDArray[np.bool_]]:
        """Paint the images of `part`, whose pixels lie at `monomials`.

        Shapes: monomials [N, 6, P] -> image [N, P], and bool [L, N, P]: which pixels each of the L layers called
        "lesion" covers by half or more.
        """
        image = np.full((len(monomials), monomials.shape[2]), self._background, np.float32)
        lesions: list[NDArray[np.bool_]] = []
        walls: dict[str, Floats] = {}
        for layer, shapes in self._layers:
            cover = coverage(shapes[part], monomials)
            if layer.inside:
                cover *= walls[layer.inside]
            if layer.name in self._walls:
                walls[layer.name] = cover
            if layer.name == "lesion":
                lesions.append(cover >= 0.5)
            image += cover * (layer.value[part, None] - image)
        return image, np.stack(lesions)


def _warp_basis(size: int) -> Doubles:
    """Give 1, x, y and the waves at every pixel: [WARP_TERMS, size²]."""
    x, y = plane(np.empty((1, size, size), np.uint8))
    phases = [np.pi * (across * x + down * y) for across, down in WAVES]
    waves = [wave(phase) for phase in phases for wave in (np.sin, np.cos)]
    return np.stack([np.ones_like(x), x, y, *waves]).reshape(WARP_TERMS, -1).astype(np.float64)
