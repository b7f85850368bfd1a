"""D²⊥: a whitened distance that a change of prevalence alone does not move, beside its twin that is moved by it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.shift.moments import Vectors, check_length, check_rows, moments, squared_distance

TAU = 1e-6
"""Added to each variance: an entry that never varies must not weigh without limit."""
RANK = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """s ↦ P_U W s: scaled by the spread within classes, then freed of the directions in which the classes differ.

    For a label mix π the mean is Σ_c π_c μ_c, so that a pure change of prevalence moves it inside span{μ_c − μ_1},
    which P_U = I − U Uᵀ takes away exactly. The marginal twin has no U.

    Shapes: weights [d], directions U [d, rank] with orthonormal columns.
    """

    weights: Vectors
    directions: Vectors

    @property
    def freedom(self) -> int:
        """d − rank(U): the entries that are left."""
        return int(self.directions.shape[0] - self.directions.shape[1])

    def __call__(self, rows: Vectors) -> Vectors:
        """Whiten and project. Shapes: [..., d] -> [..., d]."""
        check_length(rows, self.weights)
        scaled = rows * self.weights
        return np.asarray(scaled - (scaled @ self.directions) @ self.directions.T)


def whitening(rows: Vectors, labels: NDArray[np.int64], projected: bool = True) -> Whitening:
    """Learn W and U from labelled patients, usually those of all source sites together.

    W = diag(1/√(v + τ)), v the variance within classes pooled over them; classes of one patient give a mean and no
    variance. `projected` False gives the marginal twin: the same W, no U.

    Shapes: rows [P, d], labels [P].

    Raises:
        DataError: Not one label per patient, or no class has two patients, or nothing is left beside U.
    """
    found, classes = check_rows(rows), np.asarray(labels)
    if classes.shape != (len(found),):
        raise DataError(f"{len(found)} patients come with labels of shape {classes.shape}. Give one label each.")
    names, index, counts = np.unique(classes, return_inverse=True, return_counts=True)
    freedom = len(found) - len(names)
    if freedom < 1:
        raise DataError(f"{len(names)} classes of one patient each have no spread. Give a class at least 2 patients.")
    means = np.stack([found[index == place].mean(0) for place in range(len(counts))])
    weights = 1 / np.sqrt(((found - means[index]) ** 2).sum(0) / freedom + TAU)
    directions = basis((means[1:] - means[:1]) * weights) if projected else np.zeros((found.shape[1], 0))
    if directions.shape[1] >= found.shape[1]:
        raise DataError(
            f"{len(names)} classes differ in all {found.shape[1]} entries of the signature, so that no entry is left. "
            f"Use a longer signature or the marginal distance."
        )
    return Whitening(weights, directions)


def d2(left: Vectors, right: Vectors, whiten: Whitening) -> float:
    """‖P_U W (μ_i − μ_j)‖² / (d − rank U), without the bias of sampling; signed. Shapes: rows [P, d], [Q, d].

    The variance is that of the whitened and projected rows: correlations between entries are accounted for.
    """
    return squared_distance(moments(whiten(left)), moments(whiten(right))) / whiten.freedom


def basis(spans: Vectors) -> Vectors:
    """Give orthonormal columns for the rows' span: singular values above a relative 1e-9. [k, d] -> [d, rank]."""
    if not spans.size:
        return np.zeros((spans.shape[1], 0))
    _, sizes, vectors = np.linalg.svd(spans, full_matrices=False)
    return np.asarray(vectors[sizes > RANK * max(1.0, float(sizes[0]))].T)
