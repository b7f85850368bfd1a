"""Alarms: what the sites' health statistics say about the model's attention, per round and site."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.attention.health_sums import HealthSums

SATURATED, SATURATION_RISE = 0.8, 0.2
"""Share of gates shut or open, and its rise since the first measurement (after Siomos et al. 2024, ANFR, who saw gates
drift to 1 under BatchNorm; the two figures are ours)."""
BOUNDS = {"collapse": 0.9, "sink": 0.5, "border": 0.9}
"""Ours: rows at one place, or one branch alone; half of all attention at one token; all mass in the outer ring."""
CORNER_EXCESS, CORNER_ERRORS = 1 / 32, 4.0
"""A corner holds 4 of 64 cells: half of its fair share, and four standard errors."""
CORNERS = ("corner-nw", "corner-ne", "corner-sw", "corner-se")


FAMILIES = ("saturation", "collapse", "sink", "border")


@dataclass(frozen=True, slots=True)
class Finding:
    """The worst of one family at one site: the statistic `site/name` of the model that shows it, value and bound."""

    statistic: str
    value: float
    bound: float

    @property
    def alarming(self) -> bool:
        """Whether the value is past the bound."""
        return self.value > self.bound


class HealthMonitor:
    """Remembers each site's first saturation and judges every measurement."""

    def __init__(self) -> None:
        self._first: dict[str, float] = {}

    def remember(self, site: str, values: Mapping[str, float]) -> None:
        """Take what a record of an earlier round says, so that a resumed run goes on as an unbroken one."""
        if "saturation" in values:
            self._first.setdefault(site, values["saturation"])

    def look(self, site: str, sums: HealthSums) -> dict[str, Finding]:
        """Give the worst statistic of each family that the model has, alarming or not."""
        found = {family: worst for family in FAMILIES if (worst := _greatest(family, sums.mean))}
        if gates := found.get("saturation"):
            first = self._first.setdefault(site, gates.value)
            bound = min(SATURATED, first + SATURATION_RISE)
            found["saturation"] = Finding(gates.statistic, gates.value, bound)
        if corner := shortcut(sums):
            found["shortcut"] = corner
        return found


def _greatest(family: str, means: Mapping[str, float]) -> Finding | None:
    values = {name: value for name, value in means.items() if name.rsplit("/", 1)[-1] == family}
    if not values:
        return None
    name = max(values, key=lambda key: values[key])
    return Finding(name, values[name], BOUNDS.get(family, SATURATED))


def shortcut(sums: HealthSums) -> Finding | None:
    """Find the corner that holds most more mass in one class than in the others: a mark that gives the label away.

    The excess of a corner is its difference between the classes less the median difference of the four corners, so
    that attention which spreads to all sides alike is no alarm. The bound is `CORNER_EXCESS`, and at least
    `CORNER_ERRORS` standard errors. What stands in a corner in every class alike does not count. None where the model
    has no map, or no class and its rest have two patients each.
    """
    found = []
    bases = dict.fromkeys(name.rsplit("/", 1)[0] for name in sums.names if name.endswith(CORNERS))
    at = {name: place for place, name in enumerate(sums.names)}
    for group in range(len(sums.counts) if len(sums.counts) > 1 else 0):
        difference, error = sums.contrast(group)
        if np.isnan(difference).any():
            continue
        for base in bases:
            places = [at[f"{base}/{corner}"] for corner in CORNERS]
            excess = difference[places] - np.median(difference[places])
            found += [
                Finding(sums.names[place], more, max(CORNER_EXCESS, CORNER_ERRORS * float(error[place])))
                for place, more in zip(places, excess.tolist(), strict=True)
            ]
    return max(found, key=lambda item: item.value / item.bound, default=None)
