"""What classes look like at the source sites: class means and one spread within classes, from sums that add."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.shift.moments import Vectors, check_length, check_rows
from common.shift.projected import TAU, Whitening, basis


@dataclass(frozen=True, slots=True, eq=False)
class ClassLaw:
    """Rows of labelled images as N(μ_c, diag v): counts, class means, and the variance within classes, pooled.

    The law of several sites together is that of their sums: `of_sums` of added `sums`; `without` takes a site out.

    Shapes: counts [K]; means [K, d], zero for a class without rows; variance [d] over Σ counts − classes present.
    """

    counts: Vectors
    means: Vectors
    variance: Vectors

    def __post_init__(self) -> None:
        classes, length = len(self.counts), self.variance.shape
        if self.counts.ndim != 1 or len(length) != 1 or self.means.shape != (classes, *length):
            raise DataError(
                f"a law of classes has counts of shape {self.counts.shape}, means of shape {self.means.shape} and a "
                f"variance of shape {length}. Allowed are [K], [K, d] and [d]; measure it again."
            )
        arrays = (self.counts, self.means, self.variance)
        if not all(np.isfinite(array).all() for array in arrays) or min(self.counts.min(), self.variance.min()) < 0:
            raise DataError(
                "a law of classes holds values that are not finite, or a negative count or variance. Measure it again."
            )

    @classmethod
    def of(cls, rows: Vectors, labels: NDArray[np.int64], classes: int) -> Self:
        """Take the law of labelled rows. Shapes: rows [N, d], labels [N] in 0 to classes − 1."""
        return cls.of_sums(class_sums(rows, labels, classes))

    @classmethod
    def of_sums(cls, sums: Mapping[str, NDArray[Any]]) -> Self:
        """Read added `class_sums`: counts [K], total [K, d], squares [d].

        Raises:
            DataError: No class has two rows.
        """
        counts, total = sums["counts"], sums["total"]
        means = np.where(counts[:, None] > 0, total / np.maximum(counts, 1)[:, None], 0.0)
        freedom = counts.sum() - (counts > 0).sum()
        if freedom < 1:
            raise DataError(
                f"{int(counts.sum())} images of {int((counts > 0).sum())} classes have no spread. Give a class at "
                f"least 2 images."
            )
        within = sums["squares"] - (counts[:, None] * means**2).sum(0)
        return cls(counts, means, np.maximum(within, 0) / freedom)

    @property
    def freedom(self) -> float:
        """Rows less the classes that have any."""
        return float(self.counts.sum() - (self.counts > 0).sum())

    @property
    def sums(self) -> dict[str, Vectors]:
        """Give counts, total and squares, as `class_sums` of all rows would."""
        squares = self.variance * self.freedom + (self.counts[:, None] * self.means**2).sum(0)
        return {"counts": self.counts, "total": self.counts[:, None] * self.means, "squares": squares}

    def without(self, own: Mapping[str, NDArray[Any]]) -> Self:
        """Take the sums of some of the rows out again.

        Raises:
            DataError: They are not part of these, or too little is left.
        """
        left = {name: value - own[name] for name, value in self.sums.items()}
        if (left["counts"] < 0).any():
            raise DataError("a site has more images of a class than all sites together. Measure all of them again.")
        return type(self).of_sums(left)

    def mean(self, prior: Vectors) -> Vectors:
        """Give Σ_c π_c μ_c, which no label mix moves once it is projected. Shapes: prior [K] -> [d]."""
        check_length(prior, self.counts)
        return np.asarray(prior @ self.means)

    def whitening(self, projected: bool = True) -> Whitening:
        """Give W and U, equal to `projected.whitening` of the rows themselves.

        Raises:
            DataError: The classes differ in all directions, so that nothing is left beside U.
        """
        weights = 1 / np.sqrt(self.variance + TAU)
        present = self.means[self.counts > 0]
        directions = basis((present[1:] - present[:1]) * weights) if projected else np.zeros((len(weights), 0))
        if directions.shape[1] >= len(weights):
            raise DataError(
                f"{len(present)} classes differ in all {len(weights)} entries, so that no entry is left. Use a longer "
                f"signature or the marginal distance."
            )
        return Whitening(weights, directions)


def class_sums(rows: Vectors, labels: NDArray[np.int64], classes: int) -> dict[str, Vectors]:
    """Add rows up: counts [K], total [K, d] and squares [d]. Sums of several sites add.

    Raises:
        DataError: Not one label per row, a label out of range, or rows that are not finite.
    """
    found, index = check_rows(rows), np.asarray(labels)
    if index.shape != (len(found),) or not (0 <= index.min() <= index.max() < classes):
        raise DataError(
            f"{len(found)} rows come with labels of shape {index.shape} up to {index.max(initial=0)}. Give each one "
            f"label from 0 to {classes - 1}."
        )
    total = np.zeros((classes, found.shape[1]))
    np.add.at(total, index, found)
    return {
        "counts": np.bincount(index, minlength=classes).astype(np.float64),
        "total": total,
        "squares": (found**2).sum(0),
    }
