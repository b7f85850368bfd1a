"""Sum-pooling of maps to a coarse grid that keeps all mass, whatever the two sizes."""

import math
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


PLANE, VOLUME = (4, 4), (2, 4, 4)
"""Cells of a map: rows and columns, or depth, rows and columns."""


def map_cells(grid: Grid | None) -> Grid:
    """Give the cells that a map on a grid is pooled to: those of a volume for three axes, else those of a plane."""
    return VOLUME if grid is not None and len(grid) == len(VOLUME) else PLANE


def pool_cells(mass: Tensor, grid: Grid) -> Tensor:
    """Sum mass on a grid over its `map_cells`; a line counts as one row.

    Shapes: mass [B, P], P places of `grid` row by row -> [B, 16], or [B, 32] of a volume, with the same sum.
    """
    sizes, cells = (1, *grid) if len(grid) == 1 else grid, map_cells(grid)
    pooled = mass.double().reshape(len(mass), *sizes)
    for axis, (size, count) in enumerate(zip(sizes, cells, strict=True), 1):
        share = torch.from_numpy(overlaps(size, count)).to(mass.device)
        pooled = torch.tensordot(pooled, share, ([axis], [1])).movedim(-1, axis)
    return pooled.reshape(len(mass), math.prod(cells)).to(mass.dtype)


def pooling_matrix(grid: Grid) -> NDArray[np.float64]:
    """Give what `pool_cells` multiplies by: the share of each place that falls into each cell, [P, cells]."""
    sizes = (1, *grid) if len(grid) == 1 else grid
    whole: NDArray[np.float64] = np.ones((1, 1))
    for size, count in zip(sizes, map_cells(grid), strict=True):
        whole = np.asarray(np.kron(whole, overlaps(size, count)))
    return whole.T


def pool_mass(maps: Tensor, cells: int) -> Tensor:
    """Sum maps over a cells x cells grid; a pixel across a border is shared by area. Not means: mass stays mass.

    In float64, so that a GPU set to TF32 loses none of it.

    Shapes: maps [B, H, W] -> [B, cells, cells] with the same sum per image.
    """
    rows, columns = (torch.from_numpy(overlaps(size, cells)).to(maps.device) for size in maps.shape[1:])
    return (rows @ maps.double() @ columns.T).to(maps.dtype)
