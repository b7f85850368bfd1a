"""Sum-pooling of maps to a coarse grid that keeps all mass, whatever the two sizes."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.attention.base import Grid


@lru_cache(maxsize=64)
def overlaps(size: int, cells: int) -> NDArray[np.float64]:
    """Give the share of each of `size` equal intervals of [0, 1] that falls into each of `cells` equal intervals.

    Shapes: [cells, size]; every column sums to one.
    """
    edges, bounds = np.arange(size + 1) / size, np.arange(cells + 1) / cells
    low = np.maximum(edges[None, :-1], bounds[:-1, None])
    high = np.minimum(edges[None, 1:], bounds[1:, None])
    return (high - low).clip(min=0) * size


def pool_plane(mass: Tensor, grid: Grid, cells: int = 4) -> Tensor:
    """Sum mass on a grid of any number of axes over cells x cells of its last two: depth is summed, a line is one row.

    Shapes: mass [B, P], P places of `grid` row by row -> [B, cells * cells] with the same sum.
    """
    plane = mass.reshape(len(mass), -1, *((1, *grid)[-2:])).sum(1)
    return pool_mass(plane, cells).flatten(1)


def pool_mass(maps: Tensor, cells: int) -> Tensor:
    """Sum maps over a cells x cells grid; a pixel across a border is shared by area. Not means: mass stays mass.

    In float64, so that a GPU set to TF32 loses none of it.

    Shapes: maps [B, H, W] -> [B, cells, cells] with the same sum per image.
    """
    rows, columns = (torch.from_numpy(overlaps(size, cells)).to(maps.device) for size in maps.shape[1:])
    return (rows @ maps.double() @ columns.T).to(maps.dtype)
