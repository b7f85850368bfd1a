"""The frame that displacements are held against each other in: whitened within sites, blind to prevalence."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.shift.moments import Vectors, check_length, check_rows
from common.shift.projected import TAU, basis


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """s ↦ M s: patients of one site and class vary alike in every direction, by about 1; classes' means coincide.

    Shapes: matrix [d, d], of rank `freedom`.
    """

    matrix: Vectors
    freedom: int

    def __call__(self, rows: Vectors) -> Vectors:
        """Bring rows into the frame. Shapes: [..., d] -> [..., d]."""
        check_length(rows, self.matrix)
        return np.asarray(rows @ self.matrix.T)


def frame_of(rows: Vectors, labels: NDArray[np.int64], sites: NDArray[np.int64]) -> Frame:
    """Learn the frame on patients of known class and site.

    M = P_U R^(−½) D^(−½): D the variances within site and class, R the correlations there, shrunk towards none as far
    as their own sampling error asks (there are often more entries than patients), U what the classes' means differ by
    within sites. What differs between sites stays: that is what a displacement is about.

    Shapes: rows [Q, d], labels and sites [Q].
    Source: Schäfer and Strimmer 2005, section 2.4, target D, for the shrinkage.

    Raises:
        DataError: Not one label and site per row, no two rows of one site and class, or nothing is left beside U.
    """
    found = check_rows(rows)
    if labels.shape != (len(found),) or sites.shape != (len(found),):
        raise DataError(
            f"{len(found)} patients come with labels of shape {labels.shape} and sites of shape {sites.shape}. Give "
            f"one label and one site each."
        )
    pairs, index = np.unique(np.stack([sites, labels], 1), axis=0, return_inverse=True)
    index = index.ravel()
    freedom = len(found) - len(pairs)
    if freedom < 2:
        raise DataError(
            f"{len(found)} patients fall into {len(pairs)} pairs of site and class, so that none varies. Give each "
            f"site several patients of a class."
        )
    means = np.zeros((len(pairs), found.shape[1]))
    np.add.at(means, index, found)
    means /= np.bincount(index)[:, None]
    inside = found - means[index]
    spread = np.sqrt((inside**2).sum(0) / freedom + TAU)
    values, vectors = np.linalg.eigh(_correlation(inside / spread, freedom))
    whiten = (vectors / np.sqrt(values)) @ vectors.T / spread
    directions = basis(_class_gaps(means, pairs) @ whiten.T)
    left = found.shape[1] - directions.shape[1]
    if left < 1:
        raise DataError(
            f"the classes differ in all {found.shape[1]} entries of the signature, so that no entry is left. Use a "
            f"longer signature."
        )
    return Frame(whiten - directions @ (directions.T @ whiten), left)


def _correlation(scaled: Vectors, freedom: int) -> Vectors:
    """Estimate correlations of rows of variance 1, [n, d] -> [d, d], shrunk towards the identity."""
    found = scaled.T @ scaled / freedom
    error = ((scaled**2).T @ (scaled**2) / freedom - found**2) / freedom
    off = ~np.eye(len(found), dtype=bool)
    total = float((found[off] ** 2).sum())
    share = min(1.0, max(0.0, float(error[off].sum()) / total)) if total > 0 else 1.0
    share = max(share, 1e-3)  # never singular
    return np.asarray((1 - share) * found + share * np.eye(len(found)))


def _class_gaps(means: Vectors, pairs: NDArray[np.int64]) -> Vectors:
    """Give each class's mean minus that of the first class, averaged over the sites that have both. [k, d]."""
    first, *others = np.unique(pairs[:, 1])
    gaps = []
    for label in others:
        both = [
            means[(pairs[:, 0] == site) & (pairs[:, 1] == label)][0]
            - means[(pairs[:, 0] == site) & (pairs[:, 1] == first)][0]
            for site in np.unique(pairs[:, 0])
            if {label, first} <= set(pairs[pairs[:, 0] == site, 1])
        ]
        if both:
            gaps.append(np.mean(both, axis=0))
    return np.array(gaps).reshape(len(gaps), means.shape[1])
