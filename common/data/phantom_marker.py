"""The corner marker: a letter burned into the image after acquisition, a shortcut where it follows the label."""

import numpy as np
from numpy.typing import NDArray

GLYPH = ("XXXX.", "X...X", "XXXX.", "X.X..", "X..X.", "X...X")
SIDE = 64
"""Per so many pixels of the image's side, one pixel for each cell of the glyph, at least one."""
MARGIN = 3 / 64
"""Distance from the two edges, in image sides."""
GREY = 0.92


def stamp(images: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Give a copy with the marker in the upper right corner of the images at `where`.

    Shapes: images uint8 [N, H, W], where bool [N].
    """
    marked = images.copy()
    rows, columns = footprint(*images.shape[1:]).nonzero()
    marked[np.flatnonzero(where)[:, None], rows, columns] = round(255 * GREY)
    return marked


def footprint(height: int, width: int) -> NDArray[np.bool_]:
    """Say which pixels [H, W] the marker covers."""
    cell = max(1, round(min(height, width) / SIDE))
    glyph = np.array([[mark == "X" for mark in row] for row in GLYPH]).repeat(cell, axis=0).repeat(cell, axis=1)
    top, right = round(MARGIN * height), width - round(MARGIN * width)
    result = np.zeros((height, width), bool)
    result[top : top + glyph.shape[0], right - glyph.shape[1] : right] = glyph
    return result
