"""Sums of the health statistics over a site's patients, by class: what may leave, and what adds across sites."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.errors import ProtocolError


@dataclass(frozen=True, slots=True, eq=False)
class HealthSums:
    """Per class, the number of patients and the sums of each statistic and of its square.

    A patient whose images are of several classes counts in each with the share of its images there, so that shares
    add to one: one patient changes `counts` by at most 1 (L1), and each statistic's column by at most 1, for every
    statistic lies in [0, 1].

    Shapes: counts float64 [K]; total, squares float64 [K, h], h = number of `names`.
    """

    names: tuple[str, ...]
    counts: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = (len(self.counts), len(self.names))
        if self.counts.ndim != 1 or self.total.shape != shape or self.squares.shape != shape:
            raise ProtocolError(
                f"health sums have counts of shape {self.counts.shape} and sums of shape {self.total.shape} and "
                f"{self.squares.shape} for {len(self.names)} statistics. Allowed are [K] and twice [K, h]; run "
                f"one version of Consilium everywhere."
            )
        arrays = (self.counts, self.total, self.squares)
        slack = 1e-6 * (1 + self.counts[:, None])
        if not all(np.isfinite(array).all() and array.min(initial=0) >= 0 for array in arrays) or not (
            (self.total <= self.counts[:, None] + slack).all() and (self.squares <= self.total + slack).all()
        ):
            raise ProtocolError(
                "health sums are not finite or lie outside what their patients can add up to. Each statistic lies in "
                "[0, 1]; measure them again."
            )

    @classmethod
    def of(
        cls,
        names: tuple[str, ...],
        groups: int,
        patients: Sequence[str],
        labels: Sequence[int],
        values: NDArray[np.float64],
    ) -> Self:
        """Add up images: `patients` and `labels` of each, values [N, h] in [0, 1]."""
        rows: dict[str, list[int]] = defaultdict(list)
        for place, patient in enumerate(patients):
            rows[patient].append(place)
        counts = np.zeros(groups)
        total, squares = np.zeros((groups, len(names))), np.zeros((groups, len(names)))
        label = np.asarray(labels, np.int64)
        for patient in sorted(rows):
            own = np.array(rows[patient])
            for group in np.unique(label[own]):
                there = own[label[own] == group]
                share, mean = len(there) / len(own), values[there].mean(0)
                counts[group] += share
                total[group] += share * mean
                squares[group] += share * mean**2
        return cls(names, counts, total, squares)

    @property
    def mean(self) -> dict[str, float]:
        """Mean over all patients of each statistic; empty without patients."""
        count = float(self.counts.sum())
        return {} if count == 0 else dict(zip(self.names, (self.total.sum(0) / count).tolist(), strict=True))

    def contrast(self, group: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Difference of a class's mean to that of all others, and its standard error (Welch 1947), each [h].

        NaN where the class or the others have fewer than two patients.
        """
        rest = np.arange(len(self.counts)) != group
        counts = np.array([self.counts[group], self.counts[rest].sum()])
        if counts.min() < 2:
            blank = np.full(len(self.names), np.nan)
            return blank, blank
        means = np.stack([self.total[group], self.total[rest].sum(0)]) / counts[:, None]
        squares = np.stack([self.squares[group], self.squares[rest].sum(0)]) / counts[:, None]
        variance = (squares - means**2).clip(min=0)
        return means[0] - means[1], np.sqrt((variance / (counts[:, None] - 1)).sum(0))
