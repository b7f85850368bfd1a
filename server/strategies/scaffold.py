"""SCAFFOLD: control variates take from each site's gradients what it has in common with nobody else.

c ← c + Σ (n_k / N) (new c_k − old c_k), N the images of all source sites, in the round or not. Weighted as the updates
are, c stays Σ (n_k / N) c_k at all times; the paper weighs all sites alike. The server's learning rate is 1.

Source: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", algorithm 1.
"""

from collections.abc import Sequence

from common.arrays import Arrays, is_float, misfit
from server.strategies.base import Weighted, weighted_mean
from server.strategies.fedavg import FedAvg

VARIATE = "c/"


class Scaffold(FedAvg):
    """FedAvg with corrected gradients (`client/methods/control_variates.py`)."""

    method = "control-variates"

    def shared(self) -> Arrays:
        """Send c."""
        return {name.removeprefix(VARIATE): array for name, array in self.state.items()}

    def unfit(self, told: Arrays, arrays: Arrays) -> str:
        """Expect the change of c_k, of the shape of the floating arrays."""
        problem = misfit(told, arrays)
        return f"told-{problem}" if problem else ""

    def direction(self, updates: Sequence[Weighted]) -> Arrays:
        """Move c by the sites' changes and give the mean update."""
        share = self.share(updates)
        change = weighted_mean([Weighted(item.site, item.told, item.weight) for item in updates])
        self.state = {
            VARIATE + name: (self.state.get(VARIATE + name, 0 * each) + share * each).astype(each.dtype)
            for name, each in change.items()
            if is_float(each)
        }
        return super().direction(updates)
