"""One number about one site that costs the same for a signature of any length: how far it lies from the others.

d = ‖m_k − m₋ₖ‖₂ of whitened, clipped signatures, m_k the site's own exact mean and m₋ₖ the others'. The released
prior is the mean of all, so about it n·m_k + (N − n)·m₋ₖ = 0 and d = ‖m_k‖·N/(N − n). A patient who comes or goes moves
m_k by at most 2·C/n, hence d by Δ = 2·C·(1/n + 1/(N − n)), whatever the length; N and n are public numbers here: what
the prior says, and the fewest patients that a site may have.

Source: ours (the triangle inequality); Laplace mechanism of Dwork et al. 2006.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.attention.prior import Prior
from common.errors import DataError
from common.randomness import SecureRandom

Floats = NDArray[np.float64]
RIDGE = 1e-4
"""Added to the variances before whitening, so that a constant entry does not rule the distance."""


@dataclass(frozen=True, slots=True)
class DistanceRelease:
    """How a site's distance is released.

    Args:
        prior: The released prior, public.
        clip: C, the largest norm of a patient's whitened signature about the prior's mean.
        fewest: n, the public lower bound of the patients at a site.
        noise_multiplier: z, the scale of the noise in sensitivities; the release costs ε = 1/z by itself.

    Raises:
        DataError: The prior rests on no more patients than one site may have.
    """

    prior: Prior
    clip: float
    fewest: int
    noise_multiplier: float

    def __post_init__(self) -> None:
        if self.prior.patients <= self.fewest:
            raise DataError(
                f"the prior rests on {self.prior.patients} patients and a site has at least {self.fewest}: there is no "
                f"one else to be far from. Let more sites take part."
            )

    @property
    def sensitivity(self) -> float:
        """Δ: the most that one patient moves the distance."""
        return 2 * self.clip * (1 / self.fewest + 1 / (self.prior.patients - self.fewest))

    @property
    def noise(self) -> float:
        """Standard deviation of the noise on the number, √2·z·Δ."""
        return math.sqrt(2) * self.noise_multiplier * self.sensitivity

    def exact(self, means: Floats) -> float:
        """Give the distance without noise. Shape: means [P, d].

        A patient whose mean is not finite counts as one at the prior: an error would tell of him, at no price.

        Raises:
            DataError: Fewer patients than the public bound says.
        """
        if len(means) < self.fewest:
            raise DataError(
                f"the site has {len(means)} patients, fewer than the declared {self.fewest}: the noise would not cover "
                f"them. Declare fewer in `privacy.fewest-patients`, or leave the site out."
            )
        known = np.where(np.isfinite(means).all(axis=1, keepdims=True), means, self.prior.mean)
        whitened = (known - self.prior.mean) / np.sqrt(self.prior.variance + RIDGE)
        norms = np.linalg.norm(whitened, axis=1, keepdims=True)
        own = (whitened * np.minimum(1, self.clip / np.maximum(norms, 1e-300))).mean(axis=0)
        others = self.prior.patients - self.fewest
        return float(np.linalg.norm(own)) * self.prior.patients / others

    def release(self, means: Floats, random: SecureRandom) -> float:
        """Give the distance with Laplace noise; it may come out below zero."""
        return self.exact(means) + self.noise_multiplier * self.sensitivity * float(random.laplace(1)[0])
