"""Attention Distribution Distance (ADD): how differently one model looks at the patients of two sites.

The definition is ours; the literature names the quantity and gives no formula (docs/reference/signature.md).
It compares released summaries: it is zero exactly when these coincide, not when the laws of attention do.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from common.attention.base import Grid
from common.attention.blocks import SIMPLEX, BlockKind
from common.attention.schema import Block, Schema
from common.attention.simplex import project
from common.errors import DataError

Vector = NDArray[np.float64]
ETA = 0.05
"""Share of uniform mixed into both sides before the Jensen-Shannon divergence."""


def ordered_distance(left: Vector, right: Vector) -> float:
    """Wasserstein-1 distance of two histograms over ordered bins, the range counted as 1.

    W = Σ_{j<B} |F(j) − G(j)| / (B − 1), F and G the cumulated histograms (Vallender 1974). Shapes: [B], [B].
    """
    gaps = np.abs(np.cumsum(left - right)[:-1])
    return float(gaps.sum() / max(1, len(gaps)))


def map_distance(left: Vector, right: Vector, grid: Grid) -> float:
    """Transport between two maps along a quadtree, or an octree for three axes, in [0, 1].

    TW = Σ_{l=1..L} 2^{−l} Σ_cells |p(cell) − q(cell)| / Z, level l having min(2^l, side) cells along each axis and
    L = log2 of the longest side: 2 × 4 × 4 is cut into its eight octants first, then these into rows and columns.

    Range: a level contributes at most 2 · 2^{−l}, namely when no cell of it holds mass of both, so that
    Z = Σ_l 2 · 2^{−l} = 2 (1 − 2^{−L}). All of p in one corner and all of q in another attains it at every level at
    once. (Level 0, the whole image, is equal on both sides.)
    Metric: a weighted sum of L1 norms of linear images of p − q, zero only if the finest level is.

    Shapes: [P], [P], P the product of `grid`; its sides are powers of two, in a plane equal ones.
    Source: Indyk and Thaper 2003, "Fast Image Retrieval via Embeddings", section 3; the scale is ours.
    """
    powers = all(side >= 2 and side & (side - 1) == 0 for side in grid)
    if len(grid) not in (2, 3) or not powers or grid[-2] != grid[-1]:
        raise DataError(
            f"a map has the grid {grid}. Transport allows squares of side 2, 4, 8, … in a plane, or one behind the "
            f"other in a depth of 2, 4, 8, …; pool to one."
        )
    levels = max(grid).bit_length() - 1
    gap = (left - right).reshape(grid)
    levelled = (2.0**-level * float(np.abs(_coarser(gap, 2**level)).sum()) for level in range(1, levels + 1))
    return sum(levelled) / (2 * (1 - 2.0**-levels))


def _coarser(cells: Vector, most: int) -> Vector:
    """Sum neighbouring cells until no axis has more than so many."""
    for axis, side in enumerate(cells.shape):
        count = min(side, most)
        cells = cells.reshape(*cells.shape[:axis], count, side // count, *cells.shape[axis + 1 :]).sum(axis + 1)
    return cells


def share_distance(left: Vector, right: Vector) -> float:
    """Total variation Σ |p − q| / 2 in [0, 1] of shares of things without an order. Shapes: [M], [M]."""
    return float(np.abs(left - right).sum() / 2)


def scalar_distance(left: Vector, right: Vector) -> float:
    """Mean absolute difference of entries in [0, 1]. Shapes: [n], [n]."""
    return float(np.abs(left - right).mean())


_DISTANCES: dict[BlockKind, Callable[[Vector, Vector, Block], float]] = {
    "histogram": lambda left, right, block: ordered_distance(left, right),
    "map": lambda left, right, block: map_distance(left, right, block.grid or (0, 0)),
    "shares": lambda left, right, block: share_distance(left, right),
    "scalars": lambda left, right, block: scalar_distance(left, right),
    "profile": lambda left, right, block: scalar_distance(left, right),
}


def block_values(schema: Schema, mean: Vector) -> dict[str, Vector]:
    """Give each block of a mean signature on its own scale: probability vectors, or entries in [0, 1].

    What noise or rounding pushed out is projected back: to the simplex, or into the interval.

    Raises:
        AttentionError: The mean has another length than the schema.
        DataError: It is not finite.
    """
    mean = np.asarray(mean, np.float64)
    if not np.isfinite(mean).all():
        raise DataError(
            "a mean signature holds values that are not finite. Only finite ones compare; measure it again."
        )
    parts = schema.split(mean)
    return {
        block.label: project(parts[block.label]) if block.kind in SIMPLEX else parts[block.label].clip(0, 1)
        for block in schema.blocks
    }


def w_blocks(schema: Schema, left: Vector, right: Vector) -> dict[str, float]:
    """Distance of every block, each in [0, 1].

    Transport for histograms and maps, total variation for shares, mean absolute difference for scalars and profiles.
    """
    first, second = block_values(schema, left), block_values(schema, right)
    return {
        block.label: _DISTANCES[block.kind](first[block.label], second[block.label], block) for block in schema.blocks
    }


def add_w(schema: Schema, left: Vector, right: Vector) -> float:
    """ADD-W = Σ_b ω_b W_b in [0, 1] with ω_b = w_b² of the schema, which sum to 1: a metric on the blocks' values.

    Args:
        schema: What both were measured with.
        left: Mean signature of one site (`Signature.mean`, `Prior.mean`).
        right: Mean signature of the other.
    """
    distances = w_blocks(schema, left, right).values()
    return float(sum(weight**2 * distance for weight, distance in zip(schema.weights, distances, strict=True)))


def js_blocks(schema: Schema, left: Vector, right: Vector) -> dict[str, float]:
    """Jensen-Shannon divergence over ln 2, in [0, 1], of every histogram, map and share; for display only.

    Both sides are mixed with η = 0.05 of uniform. Scalars and profiles are no distributions and have none. Its
    sensitivity and bias are worse than the transport's, and it is no metric: decisions rest on `add_w`.

    Source: Lin 1991, "Divergence Measures Based on the Shannon Entropy", eq. 4.1.
    """
    first, second = block_values(schema, left), block_values(schema, right)
    return {
        block.label: _jensen_shannon(first[block.label], second[block.label])
        for block in schema.blocks
        if block.kind in SIMPLEX
    }


def add_matrix(schema: Schema, means: Mapping[str, Vector]) -> tuple[tuple[str, ...], Vector]:
    """ADD-W between all pairs of sites: names in the order given, and a symmetric matrix with a zero diagonal."""
    names = tuple(means)
    matrix = np.zeros((len(names), len(names)))
    for row in range(len(names)):
        for column in range(row):
            distance = add_w(schema, means[names[row]], means[names[column]])
            matrix[row, column] = matrix[column, row] = distance
    return names, matrix


def _jensen_shannon(left: Vector, right: Vector) -> float:
    p = (1 - ETA) * left + ETA / len(left)
    q = (1 - ETA) * right + ETA / len(right)
    middle = (p + q) / 2
    total = (p * np.log(p / middle)).sum() + (q * np.log(q / middle)).sum()
    return max(0.0, float(total) / (2 * math.log(2)))
