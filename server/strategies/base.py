"""What no strategy changes: refuse bad replies, weigh by images, average in a fixed order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.arrays import Arrays, all_finite, is_float, misfit
from common.config import StrategySection
from common.errors import AggregationError
from common.messages import TOGETHER
from common.models.personal import declared


@dataclass(frozen=True, slots=True)
class Weighted:
    """One site's update and its weight (training images)."""

    site: str
    update: Arrays
    weight: float


class Strategy:
    """Contract: `apply` turns the mean update into new arrays; `state` is what must survive a restart."""

    mu: float = 0.0
    """Weight of the proximal term that sites add to their loss."""
    personal: tuple[str, ...] = ()
    """Paths and roles of the arrays that stay at each site (`common/models/personal.py`); `strategy.personal` adds to
    them. Sites send what they learnt of these too: the mean serves sites that never trained."""
    manner: str = TOGETHER
    """How a site trains what is its own (`client/personal`)."""

    def __init__(self, settings: StrategySection) -> None:
        self.settings = settings
        self.personal = tuple(dict.fromkeys((*self.personal, *declared(settings.personal))))
        self.state: Arrays = {}

    def apply(self, arrays: Arrays, mean: Arrays) -> Arrays:
        """Give the next global arrays. Integer buffers stay as they are."""
        raise NotImplementedError

    def direction(self, updates: Sequence[Weighted]) -> Arrays:
        """Combine the updates into one: their mean, weighted by images."""
        return weighted_mean(updates)

    def aggregate(self, arrays: Arrays, updates: Sequence[Weighted]) -> Arrays:
        """Combine updates into the next global arrays.

        Raises:
            AggregationError: No update, a weight that is not positive, an update that does not fit or is not finite, or
                a result that overflows.
        """
        for item in updates:
            problem = misfit(item.update, arrays)
            if problem or not np.isfinite(item.weight) or item.weight <= 0:
                raise AggregationError(
                    f"the update of site {item.site!r} cannot be combined: {problem or 'weight'}. Allowed are finite "
                    f"floats of the model's shapes and a positive weight; look at that site's training."
                )
        if not updates:
            raise AggregationError("no update came back, so nothing can be combined. Look at the sites' own logs.")
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            new = self.apply(arrays, self.direction(updates))
        if not (all_finite(new) and all_finite(self.state)):
            raise AggregationError(
                "the combined arrays are not finite: updates are so large that they overflow. Allowed are finite "
                "arrays; lower `train.learning-rate` or `strategy.server-learning-rate`."
            )
        return new


def weighted_mean(updates: Sequence[Weighted]) -> Arrays:
    """Σ wᵢ uᵢ / Σ wᵢ in float64, sites in the order of their names, so that the order of replies changes nothing."""
    ordered = sorted(updates, key=lambda item: item.site)
    total = sum(item.weight for item in ordered)
    mean: Arrays = {}
    for name, first in ordered[0].update.items():
        sums = np.zeros(first.shape, np.float64)
        for item in ordered:
            sums += item.update[name].astype(np.float64) * (item.weight / total)
        mean[name] = sums.astype(first.dtype)
    return mean


def add(arrays: Arrays, mean: Arrays) -> Arrays:
    """Add an update to the floating arrays."""
    return {name: array + mean[name] if is_float(array) else array for name, array in arrays.items()}
