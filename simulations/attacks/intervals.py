"""Intervals for what attacks reach: shares, true positives at a false positive rate, areas under the curve."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from common.metrics.bootstrap import LEVEL, interval
from common.metrics.ranking import auroc
from common.seeds import generator

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RESAMPLES = 1000


def share(hits: int, of: int) -> tuple[float, float]:
    """Give the exact 95 % interval of a probability after `hits` of `of` tries; (0, 1) after none.

    Source: Clopper and Pearson 1934, written with quantiles of the beta law.
    """
    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, hits, of - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, of - hits)) if hits < of else 1.0
    return low, high


@dataclass(frozen=True, slots=True)
class Rates:
    """True positives at a threshold that lets `false` of the `others` through."""

    true: int
    members: int
    false: int
    others: int

    @property
    def sensitivity(self) -> float:
        """Share of the members that are found."""
        return self.true / self.members

    @property
    def false_at_most(self) -> float:
        """Upper end of the 95 % interval of the false positive rate.

        The threshold is an order statistic of the others' scores. The rate above the (k + 1)-th largest of n follows
        Beta(k + 1, n − k), whose quantile is the end of Clopper and Pearson's interval: choosing it so costs nothing.
        """
        return share(self.false, self.others)[1]


def rates_at(scores: Floats, members: Bools, false_positive_rate: float) -> Rates:
    """Count members above the lowest threshold that at most this share of the others passes.

    Shapes: scores, members [N].
    """
    others = np.sort(scores[~members])[::-1]
    allowed = int(false_positive_rate * len(others) + 1e-9)
    threshold = others[allowed] if allowed < len(others) else -np.inf
    return Rates(
        true=int((scores[members] > threshold).sum()),
        members=int(members.sum()),
        false=int((others > threshold).sum()),
        others=len(others),
    )


def area(scores: Floats, members: Bools, seed: int) -> tuple[float, tuple[float, float]]:
    """Give the area under the ROC curve and its bootstrap interval; members and others are drawn apart.

    Shapes: scores, members [N].
    """
    rng = generator(seed, "attack-area")
    weights = np.zeros((RESAMPLES + 1, len(scores)))
    weights[0] = 1
    for kind in (members, ~members):
        count = int(kind.sum())
        weights[1:, kind] = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    areas = auroc(scores, members, weights)
    return float(areas[0]), interval(areas[1:])
