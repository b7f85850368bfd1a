"""FedDyn: each site's loss gains a linear term, so that where the sites agree is an optimum of them all.

h ← h − α Σ (n_k / N) Δ_k over the round's sites, N the images of all source sites; w ← w + Δ̄ − h / α. The paper weighs
all sites alike. Only what is learnt by gradients has such a term: buffers are averaged.

−h / α is the sum of all mean updates so far and does not depend on α: the server goes on in the direction of the rounds
before, however small α is. That is the paper's algorithm; α → 0 makes local training plain, and not the server.

Source: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", algorithm 1.
"""

from collections.abc import Sequence

from common.arrays import Arrays
from common.config import StrategySection
from server.strategies.base import Weighted
from server.strategies.fedavg import FedAvg

STATE = "h/"


class FedDyn(FedAvg):
    """FedAvg with a server state (`client/methods/dynamic_regulariser.py` at the sites)."""

    method = "dynamic-regulariser"

    def __init__(self, settings: StrategySection) -> None:
        super().__init__(settings)
        self.mu = settings.dynamic

    def direction(self, updates: Sequence[Weighted]) -> Arrays:
        """Give Δ̄ − h / α."""
        mean, share, alpha = super().direction(updates), self.share(updates), self.settings.dynamic
        self.state = {
            STATE + name: (self.state.get(STATE + name, 0 * each) - alpha * share * each).astype(each.dtype)
            for name, each in mean.items()
            if self.learns(name)
        }
        return {
            name: (each - self.state[STATE + name] / alpha).astype(each.dtype) if self.learns(name) else each
            for name, each in mean.items()
        }
