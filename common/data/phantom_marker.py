"""The corner marker: a letter burned into the image after acquisition, a shortcut where it follows the label."""

import numpy as np
from numpy.typing import NDArray

GLYPH = ("XXXX.", "X...X", "XXXX.", "X.X..", "X..X.", "X...X")
SIDE = 64
"""The glyph is drawn for images of this side and scaled with them."""
CORNER = (3, 55)
"""Row and column of its upper left pixel."""
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
    glyph = np.array([[cell == "X" for cell in row] for row in GLYPH])
    canvas = np.zeros((SIDE, SIDE), bool)
    canvas[CORNER[0] : CORNER[0] + glyph.shape[0], CORNER[1] : CORNER[1] + glyph.shape[1]] = glyph
    # Below SIDE a pixel is covered if any of its share of the glyph is; above, cells repeat.
    tall = np.logical_or.reduceat(canvas, np.arange(height) * SIDE // height, axis=0)
    result: NDArray[np.bool_] = np.logical_or.reduceat(tall, np.arange(width) * SIDE // width, axis=1)
    return result
