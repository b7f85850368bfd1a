"""What a claimed (ε, δ) allows an attacker to reach, whatever the attack."""

import math
from dataclasses import dataclass

from common.errors import PrivacyError


@dataclass(frozen=True, slots=True)
class Claim:
    """An (ε, δ) that a mechanism says it keeps, neighbours being data with and without one patient.

    `epsilon` lies in [0, ∞], where ∞ claims nothing; `delta` in [0, 1).

    Raises:
        PrivacyError: They do not.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not (self.epsilon >= 0 and 0 <= self.delta < 1):
            raise PrivacyError(
                f"the claim to attack is ε = {self.epsilon}, δ = {self.delta}. Allowed are ε ≥ 0 (infinite claims "
                f"nothing) and 0 ≤ δ < 1; read them from the ledger."
            )

    @property
    def nothing(self) -> bool:
        """Whether nothing is claimed."""
        return math.isinf(self.epsilon)

    @property
    def swapped(self) -> "Claim":
        """Give what it claims of data that differ by one patient put in another's place: (2ε, (1 + e^ε) δ).

        For attacks on cohorts of a fixed size, such as a training split against a test split: who is a member takes the
        place of somebody. Two steps, one out and one in (group privacy, Dwork and Roth 2014, theorem 2.2).
        """
        if self.nothing:
            return self
        return Claim(2 * self.epsilon, min((1 + _exp(self.epsilon)) * self.delta, 1 - 1e-12))

    def reach(self, chance: float) -> float:
        """Give the largest probability of an event that without the patient, or by guessing, has `chance`.

        It is the bound on the true positive rate of membership inference at a false positive rate of `chance`, and on
        the share of reconstructions that succeed where a guess from what is known beforehand succeeds with `chance`.
        Both are in [0, 1]; without a claim the answer is ∞.

        Source: min(e^ε α + δ, 1 − e^−ε (1 − δ − α)): Kairouz, Oh, Viswanath 2015, theorem 2.1; for reconstruction
        Balle, Cherubin, Hayes 2022, where the event is that the reconstruction is near.
        """
        if self.nothing:
            return math.inf
        steep = chance * _exp(self.epsilon) if chance > 0 else 0.0
        flat = math.exp(-self.epsilon) * (1 - self.delta - chance)
        return min(1.0, steep + self.delta, 1 - max(0.0, flat))

    @property
    def area(self) -> float:
        """Give the largest area under the ROC curve of membership inference; ∞ without a claim.

        The area above `reach` is that of two triangles that meet where it crosses the antidiagonal,
        α = (1 − δ) / (1 + e^ε); together (1 − δ) α. So the area below is 1 − (1 − δ)² / (1 + e^ε).
        """
        if self.nothing:
            return math.inf
        return 1 - (1 - self.delta) ** 2 / (1 + _exp(self.epsilon))


def _exp(epsilon: float) -> float:
    return math.exp(min(epsilon, 700.0))
