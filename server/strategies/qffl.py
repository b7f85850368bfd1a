"""q-FFL: the higher a site's loss, the more it counts; larger q asks for more even losses.

Δ = Σ F_k^q L Δ_k / Σ (q F_k^(q−1) ‖L Δ_k‖² + L F_k^q), F_k the loss of the global model at site k. L stands for the
smoothness of the loss. The paper takes 1 / η, η the local learning rate, for updates of one step; updates of many steps
are longer, and the default of 1 keeps the second part of the denominator in charge. At q = 0 L cancels and Δ is the
mean of the updates, every site alike.

Source: Li et al. 2020, "Fair Resource Allocation in Federated Learning", algorithm 2 (q-FedAvg).
"""

from collections.abc import Sequence

import numpy as np

from common.arrays import Arrays
from server.strategies.base import Weighted, loss_unfit, square, weighted_mean
from server.strategies.fedavg import FedAvg

LEAST = 1e-10
"""Added to losses, for a power of 0."""


class QFfl(FedAvg):
    """FedAvg weighted by powers of losses. Sites tell `loss` (`client/methods/first_loss.py`)."""

    method = "first-loss"
    told = ("loss",)

    def unfit(self, told: Arrays, arrays: Arrays) -> str:
        """Expect a loss of 0 or more."""
        return super().unfit(told, arrays) or loss_unfit(told)

    def direction(self, updates: Sequence[Weighted]) -> Arrays:
        """Weigh by F_k^q and divide by the estimated curvature."""
        q, smooth = self.settings.fairness, self.settings.smoothness
        ordered = sorted(updates, key=lambda item: item.site)
        losses = np.array([float(item.told["loss"]) for item in ordered]) + LEAST
        squares = np.array([square(item.update) for item in ordered])
        powers = losses**q
        curvature = float(np.sum(q * losses ** (q - 1) * smooth**2 * squares + smooth * powers))
        weighed = [Weighted(item.site, item.update, float(power)) for item, power in zip(ordered, powers, strict=True)]
        scale = smooth * float(powers.sum()) / curvature
        return {name: (scale * each).astype(each.dtype) for name, each in weighted_mean(weighed).items()}
