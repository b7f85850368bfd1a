"""A lower bound on ε from guesses about who was in, after a single run."""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

from common.metrics.bootstrap import LEVEL

LARGEST = 60.0
"""Of ε: beyond it e^−ε vanishes beside 1 and no audit could tell."""


def chance_of(right: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Bound the chance that an (ε, δ)-private mechanism lets so many guesses be right.

    P[≥ v right] ≤ β + α · 2 m δ with β = P[B ≥ v], α = max_{1 ≤ i ≤ v} P[v − i ≤ B < v] / i, B ~ Bin(r, e^ε/(1 + e^ε)),
    for r guesses of which v are right, about m canaries each in or out by a fair coin. Guesses may be left out, but how
    many are made is fixed beforehand.

    Source: Steinke, Nasr, Jagielski 2023, "Privacy Auditing with One (1) Training Run", theorem 5.2.
    """
    law = binom(guesses, 1 / (1 + np.exp(-epsilon)))
    beta = float(law.sf(right - 1))
    if delta == 0 or right == 0:
        return min(1.0, beta)
    i = np.arange(1, right + 1)
    alpha = float((np.cumsum(law.pmf(right - i)) / i).max())
    return min(1.0, beta + alpha * 2 * canaries * delta)


def epsilon_at_least(right: int, guesses: int, canaries: int, delta: float, level: float = LEVEL) -> float:
    """Give the largest ε that so many right guesses refute at `level`; 0 where they refute none.

    The chance of v right guesses grows with ε, so the root of chance = 1 − level is the bound.
    """

    def excess(epsilon: float) -> float:
        return chance_of(right, guesses, canaries, epsilon, delta) - (1 - level)

    if excess(0.0) >= 0:
        return 0.0
    if excess(LARGEST) <= 0:
        return LARGEST
    return float(brentq(excess, 0.0, LARGEST, xtol=1e-6))
