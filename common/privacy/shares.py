"""Shares of noise on the integers: each site adds a little, and what the honest survivors added together is enough.

A site's float vector is scaled and rounded before noise. Two neighbouring data sets then give integers that differ by
at most Δ₂ = s·C + √d in L2 (each coordinate moves by less than one more) and Δ₁ = √d·Δ₂ in L1.

Source: Kairouz, Liu, Steinke 2021; Agarwal, Kairouz, Liu 2021. The rounding bound is the deterministic one, so that
nothing has to be rejected.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import PrivacyError
from common.randomness import SecureRandom


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers on which a sum is noised.

    Args:
        scale: s, integers per unit.
        clip: C, the most that one patient moves the sum, in L2, before scaling.
        dimension: d, entries of the vector.
        honest: Sites whose noise is certain to be in an opened sum: the threshold less the colluders.

    Raises:
        PrivacyError: No honest site's noise is certain.
    """

    scale: float
    clip: float
    dimension: int
    honest: int

    def __post_init__(self) -> None:
        if self.honest < 1:
            raise PrivacyError(
                f"{self.honest} honest sites are certain to add their share of the noise. Allowed is 1 or more; lower "
                f"`secure-aggregation.colluders`, or let more sites take part."
            )

    @property
    def l2(self) -> float:
        """Sensitivity on the integers, L2."""
        return self.scale * self.clip + math.sqrt(self.dimension)

    @property
    def l1(self) -> float:
        """Sensitivity on the integers, L1; integers are no larger than their squares."""
        return min(math.sqrt(self.dimension) * self.l2, self.l2**2)

    def variance(self, noise_multiplier: float) -> float:
        """Variance of the noise on the sum that is certain, on the integers."""
        return (noise_multiplier * self.l2) ** 2

    def share_deviation(self, noise_multiplier: float) -> float:
        """Standard deviation of one site's share, on the integers: σ·Δ₂/√h."""
        return noise_multiplier * self.l2 / math.sqrt(self.honest)

    def share(self, mechanism: str, noise_multiplier: float, random: SecureRandom) -> NDArray[np.int64]:
        """Draw one site's share, [d]."""
        deviation = self.share_deviation(noise_multiplier)
        if mechanism == "skellam":
            return random.skellam(deviation**2, self.dimension)
        return random.discrete_gaussian(deviation, self.dimension)
