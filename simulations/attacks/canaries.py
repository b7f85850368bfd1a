"""The one-run audit: many canaries, each in by a coin, one run, guesses who was in, and a lower bound on ε."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import PrivacyError
from common.metrics.bootstrap import LEVEL
from common.seeds import generator
from simulations.attacks.audit_bound import epsilon_at_least
from simulations.attacks.claim import Claim
from simulations.attacks.finding import Finding, Findings
from simulations.attacks.private_sum import PrivateSum

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Mechanism = Callable[[Bools], Floats]
"""From which canaries take part, bool [m], to a score each, [m]: the larger, the more it looks as if it took part."""
SHARES = (0.1, 0.8)
"""Of the canaries guessed about: few sure guesses find a small leak, many find a large one."""


def audit(mechanism: Mechanism, canaries: int, claim: Claim, seed: int, shares: Sequence[float] = SHARES) -> Findings:
    """Run the mechanism once and bound its ε from below, at 95 %.

    The half of the guesses with the highest scores says "in", the half with the lowest "out". Each share of `shares`
    is a test of its own at (1 − 95 %) / len(shares), so that the best of them may be taken. The bound's δ is that of
    the claim; where nothing is claimed it is 0.

    Args:
        mechanism: What is audited; called once.
        canaries: How many, m. However large the leak, 1000 show no more than ε = 5.3, and 100 no more than 3.
        claim: What is to be refuted.
        seed: Draws the coins, which must not depend on what the mechanism draws.
        shares: Of the canaries to guess about, each in (0, 1]; fixed before the run.

    Raises:
        PrivacyError: Scores are missing or not finite.
    """
    included = generator(seed, "canaries").random(canaries) < 0.5
    scores = mechanism(included)
    if scores.shape != (canaries,) or not np.isfinite(scores).all():
        raise PrivacyError(
            f"the audited mechanism gave scores of shape {scores.shape} for {canaries} canaries. Needed is one finite "
            f"number each; correct the mechanism, or train without divergence."
        )
    order = np.argsort(scores, kind="stable")
    level = 1 - (1 - LEVEL) / len(shares)
    delta = 0.0 if claim.nothing else claim.delta
    bounds: dict[str, float] = {}
    reach = 0.0
    for fraction in shares:
        side = max(1, int(fraction * canaries) // 2)
        right = int((~included[order[:side]]).sum() + included[order[-side:]].sum())
        bounds[f"right of {2 * side}"] = right
        bounds[f"bound from {2 * side}"] = epsilon_at_least(right, 2 * side, canaries, delta, level)
        reach = max(reach, epsilon_at_least(2 * side, 2 * side, canaries, delta, level))
    best = max(value for name, value in bounds.items() if name.startswith("bound"))
    finding = Finding(
        name="canaries",
        measure="lower bound on ε",
        success=best,
        interval=(best, math.inf),
        baseline=0.0,
        claimed_bound=claim.epsilon,
        samples=canaries,
        details={**bounds, "bound if all were right": reach},
    )
    return (finding,)


def dirac(private_sum: PrivateSum, steps: int, gradient_norm: float) -> Mechanism:
    """Make canaries whose gradient is `gradient_norm` along an axis of their own, in `steps` sums of all of them.

    The server's view is the strongest there is: it sees every sum, and nothing hides a canary but the noise. Where the
    sum clips to C, choose a norm well above C, so that a missing clip shows.

    Source: Nasr et al. 2023, "Tight Auditing of Differentially Private Machine Learning", section 4.
    """

    def mechanism(included: Bools) -> Floats:
        rows = gradient_norm * np.eye(len(included))[included]
        return np.asarray(np.sum([private_sum(rows) for _ in range(steps)], axis=0))

    return mechanism
