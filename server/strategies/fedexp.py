"""FedExP: the mean update is stretched, the more the less the sites' updates agree in direction.

η = max(1, Σ wᵢ‖Δᵢ‖² / (2(‖Δ̄‖² + ε))), wᵢ the weights that sum to one: updates at right angles to each other shrink in
their mean, though each site would have gone farther. Sites that agree have η = 1, which is FedAvg.

Source: Jhunjhunwala, Wang, Joshi 2023, "FedExP: Speeding Up Federated Averaging via Extrapolation", algorithm 1;
weighted by images here. Its averaging of the last two models is left out.
"""

from collections.abc import Sequence

from common.arrays import Arrays
from server.strategies.base import Weighted, square, weighted_mean
from server.strategies.fedavg import FedAvg

EPSILON = 1e-3
"""Of the paper's experiments: bounds the step where updates all but cancel."""


class FedExp(FedAvg):
    """FedAvg with an extrapolated step."""

    def direction(self, updates: Sequence[Weighted]) -> Arrays:
        """Give the mean update times η."""
        mean, total = weighted_mean(updates), sum(item.weight for item in updates)
        own = sum(item.weight / total * square(item.update) for item in sorted(updates, key=lambda item: item.site))
        stretch = max(1.0, own / (2 * (square(mean) + EPSILON)))
        return {name: (stretch * delta).astype(delta.dtype) for name, delta in mean.items()}
