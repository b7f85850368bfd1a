"""Bands of vital signs: where nearly all source images lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError

BINS = 200
SHARE = 0.005


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """The range of each vital sign between its .5 % and 99.5 % quantile over source images, rounded outwards to 1/200.

    Shapes: low, high [v] in [0, 1], in the order of `look.vital_names`.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.low.ndim != 1 or self.low.shape != self.high.shape or not (self.low <= self.high).all():
            raise DataError(
                f"bands have lower ends of shape {self.low.shape} and upper ends of shape {self.high.shape}, or cross. "
                f"Allowed is one range for each vital sign; measure them again."
            )

    def outside(self, values: NDArray[np.float64], names: Sequence[str]) -> dict[str, float]:
        """Give what lies outside, by name; what is not a number does. Shapes: values [v].

        Raises:
            DataError: The bands are of another model.
        """
        if not len(values) == len(names) == len(self.low):
            raise DataError(
                f"{len(values)} vital signs are held against {len(self.low)} bands. Use the bands of the same model."
            )
        inside = (values >= self.low) & (values <= self.high)
        return {name: float(value) for name, value, well in zip(names, values, inside, strict=True) if not well}


def histograms(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Count images by bin, for each vital sign: counts add across sites. Shapes: [N, v] in [0, 1] -> [v, 200]."""
    bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    counts = np.zeros((values.shape[1], BINS))
    np.add.at(counts, (np.arange(values.shape[1])[None], bins), 1.0)
    return counts


def bands_of(counts: NDArray[np.float64]) -> Bands:
    """Read added counts. Shapes: [v, 200]."""
    share = np.cumsum(counts, 1) / counts.sum(1, keepdims=True)
    low = (share > SHARE).argmax(1) / BINS
    high = ((share >= 1 - SHARE).argmax(1) + 1) / BINS
    return Bands(low, high)
