"""ADD-M: distance of the laws of two sites' signatures, not of their means, through random Fourier features."""

import math
from dataclasses import dataclass

import numpy as np

from common.errors import DataError
from common.seeds import generator
from common.shift.moments import Vectors, check_length, check_rows

FEATURES = 256


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """φ(s) = √(2/D) (cos ω_1·s, sin ω_1·s, …), ω ~ N(0, I / bandwidth²): each row has norm 1, as a release needs.

    With D = 256 there are 128 frequencies. Public: seed and bandwidth must not come from patients' data.

    Source: Rahimi and Recht 2007, "Random Features for Large-Scale Kernel Machines"; sine and cosine in pairs.
    """

    frequencies: Vectors
    bandwidth: float

    def __call__(self, rows: Vectors) -> Vectors:
        """Embed one vector per patient. Shapes: [..., d] -> [..., D], norm of each 1."""
        check_length(rows, self.frequencies)
        phases = rows @ self.frequencies.T
        return np.asarray(np.concatenate([np.cos(phases), np.sin(phases)], -1) / math.sqrt(len(self.frequencies)))


def embedding(length: int, bandwidth: float, seed: int, features: int = FEATURES) -> Embedding:
    """Draw the frequencies from a public seed.

    Raises:
        DataError: The bandwidth is not positive or the number of features not even.
    """
    if not (math.isfinite(bandwidth) and bandwidth > 0) or features < 2 or features % 2:
        raise DataError(
            f"an embedding has the bandwidth {bandwidth} and {features} features. Allowed are a bandwidth above 0 and "
            f"an even number of features; measure the bandwidth on at least two different reference images."
        )
    drawn = generator(seed, "shift", "fourier").standard_normal((features // 2, length))
    return Embedding(drawn / bandwidth, bandwidth)


def median_distance(rows: Vectors) -> float:
    """Give the median distance between two rows: the usual bandwidth, to be taken on public images. Shapes: [P, d]."""
    found = check_rows(rows)
    squares = (found**2).sum(1)
    gaps = squares[:, None] + squares - 2 * found @ found.T
    return float(np.sqrt(np.median(gaps[np.triu_indices(len(found), 1)].clip(min=0))))


def add_m(left: Vectors, right: Vectors, embed: Embedding) -> float:
    """ADD-M = ‖φ̄_i − φ̄_j‖ in [0, 2]: a pseudo-metric on laws; one patient moves it by at most 2 / n.

    Notices changes of shape that leave the mean as it was. Zero for equal laws; for others it is near their kernel
    distance, up to the error of D features. Shapes: [P, d], [Q, d].
    """
    gap = embed(check_rows(left)).mean(0) - embed(check_rows(right)).mean(0)
    return float(np.linalg.norm(gap))
