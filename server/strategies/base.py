"""What no strategy changes: refuse bad replies, weigh by images, average in a fixed order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.arrays import Arrays, all_finite, is_float, misfit
from common.config import StrategySection
from common.errors import AggregationError
from common.messages import TOGETHER
from common.models.personal import declared, personal_names


@dataclass(frozen=True, slots=True)
class Weighted:
    """One site's update and its weight (training images), and what else the strategy's method told."""

    site: str
    update: Arrays
    weight: float
    told: Arrays = field(default_factory=dict)


class Strategy:
    """Contract: `apply` turns the mean update into new arrays; `state` is what must survive a restart."""

    mu: float = 0.0
    """Weight of the proximal term that sites add to their loss."""
    personal: tuple[str, ...] = ()
    """Paths and roles of the arrays that stay at each site (`common/models/personal.py`); `strategy.personal` adds to
    them. Sites send what they learnt of these too: the mean serves sites that never trained."""
    manner: str = TOGETHER
    """How a site trains what is its own (`client/personal`)."""

    method: str = ""
    """What the sites do beside plain training (`client/methods`)."""
    told: tuple[str, ...] = ()
    """Names of the numbers that each site tells beside its update."""

    def __init__(self, settings: StrategySection) -> None:
        self.settings = settings
        self.personal = tuple(dict.fromkeys((*self.personal, *declared(settings.personal))))
        self.state: Arrays = {}
        self.sites: Mapping[str, int] = {}
        self._learnt: frozenset[str] | None = None

    def meet(self, sites: Mapping[str, int], model: nn.Module) -> None:
        """Learn of the source sites with their training images, in this round's cohort or not, and of the model."""
        self.sites = sites
        self._learnt = frozenset(name for name, _ in model.named_parameters())

    def learns(self, name: str) -> bool:
        """Tell whether an array is learnt by gradients; before `meet`, all are taken to be."""
        return self._learnt is None or name in self._learnt

    def share(self, updates: Sequence[Weighted]) -> float:
        """Give the share of all source sites' images that the round's sites have."""
        here = sum(item.weight for item in sorted(updates, key=lambda item: item.site))
        return here / max(here, float(sum(self.sites.values())))

    def shared(self) -> Arrays:
        """Give what goes to every site that trains, beside the arrays."""
        return {}

    def unfit(self, told: Arrays, arrays: Arrays) -> str:
        """Say as a code why what a site tells cannot be used; empty when it can."""
        floats = all(is_float(array) and not array.shape for array in told.values())
        return "" if set(told) == set(self.told) and floats and all_finite(told) else "told-numbers"

    def keeps(self, model: nn.Module) -> tuple[str, ...]:
        """Name the arrays of the run's model that stay at each site, in the order of `state_dict`.

        Raises:
            ConfigError: A path or role that the model does not have.
        """
        return personal_names(model, self.personal)

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
            problem = misfit(item.update, arrays) or self.unfit(item.told, arrays)
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


def square(update: Mapping[str, NDArray[Any]]) -> float:
    """Compute ‖update‖² over all arrays, in float64."""
    return float(sum(np.square(array, dtype=np.float64).sum() for array in update.values()))


def loss_unfit(told: Arrays) -> str:
    """Say as a code why a told `loss` is none."""
    return "" if told["loss"] >= 0 else "told-loss"


def add(arrays: Arrays, mean: Arrays) -> Arrays:
    """Add an update to the floating arrays."""
    return {name: array + mean[name] if is_float(array) else array for name, array in arrays.items()}
