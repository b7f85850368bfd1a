"""FedNova at a site: how many steps of plain descent the round's steps are worth.

Source: Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
section 4: ‖a‖₁ of the vector a that says how often each gradient entered the site's arrays.
"""

import numpy as np

from client.methods.base import Method
from common.arrays import Arrays
from common.attention.base import AttentionModel


class NormalisedSteps(Method):
    """Tells `steps`, one number."""

    def told(self, model: AttentionModel, steps: int) -> Arrays:
        """Give ‖a‖₁; AdamW's steps count as one each, for their length hardly depends on the gradient's."""
        momentum = self.begun.train.momentum if self.begun.train.optimizer == "sgd" else 0.0
        return {"steps": np.array(worth(steps, momentum))}


def worth(steps: int, momentum: float) -> float:
    """Compute ‖a‖₁ = Σ_{s=1..steps} (1 − ρˢ) / (1 − ρ): under momentum ρ a gradient goes on to move the arrays."""
    return sum((1 - momentum**left) / (1 - momentum) for left in range(1, steps + 1))
