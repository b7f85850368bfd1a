"""Agnostic federated learning: the model that is best for the worst mixture of the sites.

q ← Π(q + η F), F_k the loss of the global model at site k and Π the nearest point of the simplex; updates count by q.
All sites begin alike. A site that is not in the round keeps its q. η is per round, which is many steps: papers' values
for every step of SGD (0.01) move next to nothing here.

Source: Mohri et al. 2019, "Agnostic Federated Learning", algorithm 1 (stochastic-AFL), a round for a step.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.arrays import Arrays
from server.strategies.base import Weighted, loss_unfit, weighted_mean
from server.strategies.fedavg import FedAvg

SHARE = "q/"
LEAST = 1e-12
"""A weight of zero cannot be divided by when all sites of a round have it."""


class Afl(FedAvg):
    """FedAvg weighted by q. Sites tell `loss` (`client/methods/first_loss.py`); `state` holds q by site."""

    method = "first-loss"
    told = ("loss",)

    def unfit(self, told: Arrays, arrays: Arrays) -> str:
        """Expect a loss of 0 or more."""
        return super().unfit(told, arrays) or loss_unfit(told)

    def direction(self, updates: Sequence[Weighted]) -> Arrays:
        """Move q and average with it."""
        losses = {item.site: float(item.told["loss"]) for item in updates}
        sites = sorted({*self.sites, *losses, *(name.removeprefix(SHARE) for name in self.state)})
        before = np.array([float(self.state.get(SHARE + site, 1 / len(sites))) for site in sites])
        after = self.moved(before / before.sum(), np.array([losses.get(site, np.nan) for site in sites]))
        self.state = {SHARE + site: np.array(share) for site, share in zip(sites, after, strict=True)}
        return weighted_mean([Weighted(item.site, item.update, self._weight(item.site)) for item in updates])

    def _weight(self, site: str) -> float:
        return float(self.state[SHARE + site]) + LEAST

    def moved(self, shares: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the new q; sites without a loss (NaN) keep theirs, and the others share what is left."""
        asked = np.isfinite(losses)
        left = float(shares[asked].sum())
        new = shares.copy()
        new[asked] = self.step(shares[asked], losses[asked], left)
        return new

    def step(self, shares: NDArray[np.float64], losses: NDArray[np.float64], total: float) -> NDArray[np.float64]:
        """Go up by η F and back to the simplex of sum `total`."""
        return onto_simplex(shares + self.settings.group_step * losses, total)


def onto_simplex(values: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """Give the nearest point with entries of 0 or more that sum to `total` (Duchi et al. 2008, figure 1)."""
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(values) + 1)
    last = int(np.flatnonzero(falling - excess > 0)[-1]) if total > 0 else 0
    return np.asarray(np.maximum(values - excess[last], 0.0))
