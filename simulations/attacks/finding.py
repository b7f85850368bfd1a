"""What an attack found, in a form that tables, JSON and reports share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["within", "undecided", "exceeds", "no-bound"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of one attack's success; the larger, the worse for patients.

    `interval` is the 95 % interval of `success`. `baseline` is what is reached without seeing the release.
    `claimed_bound` is the most that the claimed (ε, δ) allows, ∞ where it bounds nothing. `samples` counts the
    patients, canaries or draws behind the figure. `details` are further numbers by name.
    """

    name: str
    measure: str
    success: float
    interval: tuple[float, float]
    baseline: float
    claimed_bound: float
    samples: int
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Say whether the attack goes beyond the claim.

        "exceeds" when the whole interval lies above the bound: the claim is wrong, or the one case of forty in which an
        interval misses on that side. "undecided" when only the figure does. "within" proves nothing about stronger
        attacks. "no-bound" where nothing is claimed, or no claim bounds this measure.
        """
        if math.isinf(self.claimed_bound):
            return "no-bound"
        if self.interval[0] > self.claimed_bound:
            return "exceeds"
        return "undecided" if self.success > self.claimed_bound else "within"

    def row(self) -> dict[str, Any]:
        """Give the finding as one line of a table, the same columns for every attack."""
        return {
            "attack": self.name,
            "measure": self.measure,
            "success": self.success,
            "low": self.interval[0],
            "high": self.interval[1],
            "baseline": self.baseline,
            "claimed_bound": self.claimed_bound,
            "samples": self.samples,
            "verdict": self.verdict,
            "details": "; ".join(f"{name} = {value:.6g}" for name, value in self.details.items()),
        }


Findings = tuple[Finding, ...]
