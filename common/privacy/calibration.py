"""How much noise a plan of releases needs, and how many rounds a noise affords."""

import math
from collections.abc import Callable, Sequence

from scipy.optimize import brentq
from scipy.stats import norm

from common.errors import PrivacyError
from common.privacy.accountant import cost
from common.privacy.events import Event

COARSE = 1e-3
LEAST, MOST = 0.05, 5000.0
STEP = 1.001


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Give the exact delta of a Gaussian release of sensitivity over noise μ: Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ).

    Source: Balle and Wang 2018, theorem 8.
    """
    return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu)))


def gaussian_noise_multiplier(epsilon: float, delta: float, releases: int = 1) -> float:
    """Give the exact noise multiplier with which so many Gaussian releases cost (epsilon, delta)."""
    mu = brentq(lambda each: gaussian_delta(epsilon, each) - delta, 1e-6, 200.0, xtol=1e-12)
    return math.sqrt(releases) / float(mu)


def noise_multiplier(plan: Callable[[float], Sequence[Event]], epsilon: float, delta: float) -> float:
    """Give the least noise multiplier, to a thousandth, with which a whole plan costs at most (epsilon, delta).

    Args:
        plan: From a noise multiplier to all that will be released with it; may hold releases of fixed noise.
        epsilon: Upper end of what the plan may cost.
        delta: Its delta.

    Raises:
        PrivacyError: The releases of fixed noise alone cost more.
    """

    def over(sigma: float, interval: float = COARSE) -> float:
        return cost(plan(sigma), delta, interval).epsilon - epsilon

    if over(MOST) > 0:
        raise PrivacyError(
            f"what is released with fixed noise costs epsilon {over(MOST) + epsilon:.3g} by itself, more than the "
            f"{epsilon:g} allowed. Release signatures or metrics less often, or with more noise."
        )
    low, high = _bracket(over)
    sigma = float(math.exp(brentq(lambda log: over(math.exp(log)), math.log(low), math.log(high), xtol=5e-4)))
    while over(sigma) > 0 or over(sigma, 1e-4) > 0:  # the second takes ten times as long
        sigma *= STEP
    return sigma


def affordable(events: Callable[[int], Sequence[Event]], epsilon: float, delta: float, most: int = 100_000) -> int:
    """Give the largest number of rounds whose events cost at most (epsilon, delta), by bisection; 0 to `most`."""
    if cost(events(1), delta, COARSE).epsilon > epsilon:
        return 0
    low, high = 1, 2
    while high <= most and cost(events(high), delta, COARSE).epsilon <= epsilon:
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        fits = cost(events(middle), delta, COARSE).epsilon <= epsilon
        low, high = (middle, high) if fits else (low, middle)
    return low


def _bracket(over: Callable[[float], float]) -> tuple[float, float]:
    """Find a noise that is too little and one that is enough, from 1 outwards: PLD of tiny noise is slow."""
    low = high = 1.0
    while over(high) > 0:
        low, high = high, min(2 * high, MOST)
    while low > LEAST and over(low) <= 0:
        low, high = max(low / 1.5, LEAST), low
    return low, high
