"""FedNova: a site that makes more steps than others does not pull the model towards its own optimum.

Δ = τ Σ p_k Δ_k / a_k, p_k the share of images, a_k what the site's steps are worth and τ = Σ p_k a_k.

Source: Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
eqs. 6 and 7.
"""

from collections.abc import Sequence
from dataclasses import replace

from common.arrays import Arrays
from server.strategies.base import Weighted, weighted_mean
from server.strategies.fedavg import FedAvg


class FedNova(FedAvg):
    """FedAvg over updates per step. Sites tell `steps` (`client/methods/normalised_steps.py`)."""

    method = "normalised-steps"
    told = ("steps",)

    def unfit(self, told: Arrays, arrays: Arrays) -> str:
        """Expect at least a step."""
        return super().unfit(told, arrays) or ("" if told["steps"] >= 1 else "told-steps")

    def direction(self, updates: Sequence[Weighted]) -> Arrays:
        """Average updates per step and go as many as sites made on average."""
        ordered = sorted(updates, key=lambda item: item.site)
        total = sum(item.weight for item in ordered)
        shares = [(item.weight / total, float(item.told["steps"])) for item in ordered]
        per_step = [replace(item, weight=share / steps) for item, (share, steps) in zip(ordered, shares, strict=True)]
        # The mean divides by the sum of its weights, which here is none: multiply it back.
        scale = sum(share * steps for share, steps in shares) * sum(share / steps for share, steps in shares)
        return {name: (scale * each).astype(each.dtype) for name, each in weighted_mean(per_step).items()}
