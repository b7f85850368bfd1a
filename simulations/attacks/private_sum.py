"""The one thing that all patient-level mechanisms do: add up what patients contribute, bounded and noised."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.randomness import SecureRandom

Floats = NDArray[np.float64]
PrivateSum = Callable[[Floats], Floats]
"""From one row per patient, [n, d], to what is released of their sum, [d]. n may be 0."""


def plain_sum(rows: Floats) -> Floats:
    """Release the sum as it is: protects nobody, shows what an attack reaches at its best. [n, d] -> [d]."""
    return np.asarray(rows.sum(axis=0))


@dataclass(frozen=True, slots=True)
class GaussianSum:
    """The textbook mechanism, slow and plain: clip each row to `clip_norm`, add, add normal noise to every entry.

    Noise has the standard deviation noise_multiplier · clip_norm. Kept apart from what runs at sites, so that the audit
    has something correct, and wrong on purpose, to compare it with.

    Shapes: [n, d] -> [d]. Source: Abadi et al. 2016, algorithm 1.
    """

    clip_norm: float
    noise_multiplier: float
    random: SecureRandom = field(default_factory=SecureRandom)

    def __call__(self, rows: Floats) -> Floats:
        """Release the sum."""
        norms = np.linalg.norm(rows, axis=1)
        factors = np.minimum(1, self.clip_norm / np.maximum(norms, 1e-300))
        noise = self.noise_multiplier * self.clip_norm * self.random.normal(rows.shape[1])
        return np.asarray(factors @ rows + noise)
