"""Watching a site week by week: a smoothed alarm, and an e-process that may be looked at as often as one likes."""

import math
from dataclasses import dataclass, field

import numpy as np

from common.errors import DataError
from common.seeds import generator

SMOOTHING = 0.2
ALPHA = 0.01
BETS = np.linspace(0.05, 0.95, 19)


@dataclass(slots=True)
class Ewma:
    """Exponentially weighted mean of a statistic; alarms when two windows running it lies above the threshold.

    z_t = λ r_t + (1 − λ) z_{t−1}, z_0 = the statistic's value without news.

    Source: Roberts 1959, "Control Chart Tests Based on Geometric Moving Averages".
    """

    threshold: float
    value: float = 0.0
    smoothing: float = SMOOTHING
    above: int = 0

    def update(self, statistic: float) -> bool:
        """Take one window's statistic; say whether to alarm.

        Raises:
            DataError: The statistic is not finite.
        """
        _finite(statistic)
        self.value = self.smoothing * statistic + (1 - self.smoothing) * self.value
        self.above = self.above + 1 if self.value > self.threshold else 0
        return self.above >= 2


@dataclass(slots=True)
class EProcess:
    """A bet against "this window is like the windows before": alarms at a capital of 1/α, ever wrong with chance ≤ α.

    Each window's rank among the reference and all windows before it gives p, uniform and independent while windows are
    exchangeable; the capital of the bet κ is Π κ p^(κ−1), and the capital is the mean over a grid of κ. The window then
    joins the reference: ranks against a fixed reference would not be independent, and the promise would not hold.

    Source: Vovk, Gammerman and Shafer 2005, section 7.1 (power martingale); Ville 1939 for the bound.
    """

    reference: list[float]
    seed: int
    alpha: float = ALPHA
    _logs: np.ndarray = field(default_factory=lambda: np.zeros(len(BETS)))
    _most: float = 0.0

    def __post_init__(self) -> None:
        if not self.reference or not 0 < self.alpha < 1:
            raise DataError(
                f"an e-process has {len(self.reference)} reference windows and alpha {self.alpha}. Allowed are 1 or "
                f"more windows and an alpha between 0 and 1; build the reference from the source sites."
            )
        self.reference = [_finite(value) for value in self.reference]

    @property
    def capital(self) -> float:
        """What a stake of 1 has become; its mean is 1 while nothing has moved."""
        peak = float(self._logs.max())
        return math.exp(min(700.0, peak + math.log(float(np.exp(self._logs - peak).mean()))))

    def update(self, statistic: float) -> bool:
        """Take one window's statistic; say whether the capital has ever reached 1/α.

        Raises:
            DataError: The statistic is not finite.
        """
        value = _finite(statistic)
        seen = np.array(self.reference)
        larger, equal = int((seen > value).sum()), int((seen == value).sum()) + 1
        share = 1 - generator(self.seed, "shift", "ties", len(seen)).random()  # in (0, 1]
        p = (larger + share * equal) / (len(seen) + 1)
        self._logs = self._logs + np.log(BETS) + (BETS - 1) * math.log(p)
        self.reference.append(value)
        self._most = max(self._most, self.capital)
        return self._most >= 1 / self.alpha


def _finite(statistic: float) -> float:
    if not math.isfinite(statistic):
        raise DataError(f"a window's statistic is {statistic}. Only finite ones can be watched; measure it again.")
    return float(statistic)
