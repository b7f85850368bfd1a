"""Group distributionally robust optimisation with hospitals for groups: the worst loss counts more and more.

q_k ← q_k e^(η F_k) / Z, F_k the loss of the global model at site k; updates count by q. As in `afl`, sites begin alike,
one that is not in the round keeps its q, and η is per round.

Source: Sagawa et al. 2020, "Distributionally Robust Neural Networks for Group Shifts", algorithm 1, a round for a step.
"""

import numpy as np
from numpy.typing import NDArray

from server.strategies.afl import Afl


class GroupDro(Afl):
    """AFL with a multiplicative step in place of a projected one."""

    def step(self, shares: NDArray[np.float64], losses: NDArray[np.float64], total: float) -> NDArray[np.float64]:
        """Multiply by e^(η F), and divide by the sum."""
        raised = shares * np.exp(self.settings.group_step * (losses - losses.max()))
        return np.asarray(raised * (total / raised.sum()))
