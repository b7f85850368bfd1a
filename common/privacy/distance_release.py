"""One number about one site that costs the same for a signature of any length: how far it lies from the others.

d = ‖m_k − m₋ₖ‖₂ of whitened, clipped signatures, m_k the site's own exact mean and m₋ₖ the others'. The released
prior is the mean of all, so about it n·m_k + (N − n)·m₋ₖ = 0 and d = ‖m_k‖·N/(N − n). A patient who comes or goes moves
m_k by at most 2·C/n, hence d by Δ = 2·C·(1/n + 1/(N − n)), whatever the length; N and n are public numbers here: what
the prior says, and the fewest patients that a site may have.

The prior is noisy too. Its noise ν on every entry, which is public, would pass for a distance where variances are
small: the ridge added before whitening follows it, and `floor` says how far a site seems to lie by that noise alone.

Source: ours (the triangle inequality); Laplace mechanism of Dwork et al. 2006.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.attention.prior import Prior
from common.errors import DataError
from common.protection import PrivacySection
from common.randomness import SecureRandom

Floats = NDArray[np.float64]
RIDGE = 1e-4
"""Added to the variances before whitening, so that a constant entry does not rule the distance; the least of it."""
SPREADS = 3.0
"""Deviations of the noise of a variance that the ridge stands above."""


@dataclass(frozen=True, slots=True)
class DistanceRelease:
    """How a site's distance is released.

    Args:
        prior: The released prior, public.
        clip: C, the largest norm of a patient's whitened signature about the prior's mean.
        fewest: n, the public lower bound of the patients at a site.
        noise_multiplier: z, the scale of the noise in sensitivities; the release costs ε = 1/z by itself.
        ridge: Added to the variances.
        prior_noise: ν, the standard deviation of the noise on each entry of the prior's mean.

    Raises:
        DataError: The prior rests on no more patients than one site may have.
    """

    prior: Prior
    clip: float
    fewest: int
    noise_multiplier: float
    ridge: float = RIDGE
    prior_noise: float = 0.0

    @classmethod
    def planned(cls, prior: Prior, prior_noise: float, privacy: PrivacySection) -> "DistanceRelease":
        """Make the release of a run, as server and sites do alike.

        A variance is C times a second moment, so its noise is C·ν. A patient lies about √d from the mean in standard
        deviations, and no farther than C in all.
        """
        ridge = RIDGE + SPREADS * privacy.signature_clip * prior_noise
        clip = min(math.sqrt(len(prior.mean)), privacy.signature_clip / math.sqrt(ridge))
        return cls(prior, clip, privacy.fewest_patients, privacy.distance_noise_multiplier, ridge, prior_noise)

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

    @property
    def floor(self) -> float:
        """How far a site of patients like all others seems to lie, because of the prior's noise: √Σ ν²/(v + ridge)."""
        spread = self.prior_noise / np.sqrt(self.prior.variance + self.ridge)
        return float(np.linalg.norm(spread)) * self._leverage

    @property
    def _leverage(self) -> float:
        return self.prior.patients / (self.prior.patients - self.fewest)

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
        whitened = (known - self.prior.mean) / np.sqrt(self.prior.variance + self.ridge)
        norms = np.linalg.norm(whitened, axis=1, keepdims=True)
        own = (whitened * np.minimum(1, self.clip / np.maximum(norms, 1e-300))).mean(axis=0)
        return float(np.linalg.norm(own)) * self._leverage

    def release(self, means: Floats, random: SecureRandom) -> float:
        """Give the distance with Laplace noise; it may come out below zero."""
        return self.exact(means) + self.noise_multiplier * self.sensitivity * float(random.laplace(1)[0])
