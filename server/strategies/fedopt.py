"""Adaptive server optimizers: the mean update is a pseudo-gradient Δ.

m ← β₁·m + (1 − β₁)·Δ;  w ← w + η·m / (√v + τ);  v starts at τ². No bias correction, as in the paper.

Source: Reddi et al. 2021, "Adaptive Federated Optimization", alg. 2.
"""

import numpy as np
from numpy.typing import NDArray

from common.arrays import Arrays
from server.strategies.base import Strategy, add

FIRST, SECOND = "m/", "v/"
Moment = NDArray[np.floating]


class FedAdam(Strategy):
    """v ← β₂·v + (1 − β₂)·Δ²."""

    def apply(self, arrays: Arrays, mean: Arrays) -> Arrays:
        """Step along the first moment, scaled by the root of the second."""
        settings = self.settings
        state: Arrays = {}
        step: Arrays = {}
        for name, delta in mean.items():
            first = self.state.get(FIRST + name, np.zeros_like(delta))
            second = self.state.get(SECOND + name, np.full_like(delta, settings.tau**2))
            first = settings.beta1 * first + (1 - settings.beta1) * delta
            second = self.second_moment(second, delta * delta)
            step[name] = settings.server_learning_rate * first / (np.sqrt(second) + settings.tau)
            state[FIRST + name], state[SECOND + name] = first, second
        self.state = state
        return add(arrays, step)

    def second_moment(self, second: Moment, square: Moment) -> Moment:
        """Decay towards the squared update."""
        beta2 = self.settings.beta2
        return np.asarray(beta2 * second + (1 - beta2) * square, dtype=second.dtype)


class FedYogi(FedAdam):
    """v ← v − (1 − β₂)·Δ²·sign(v − Δ²): grows and shrinks at a bounded pace."""

    def second_moment(self, second: Moment, square: Moment) -> Moment:
        """Move towards the squared update additively."""
        beta2 = self.settings.beta2
        return np.asarray(second - (1 - beta2) * square * np.sign(second - square), dtype=second.dtype)


class FedAdagrad(FedAdam):
    """v ← v + Δ²: steps only ever grow shorter; β₂ is not used."""

    def second_moment(self, second: Moment, square: Moment) -> Moment:
        """Add the squared update."""
        return np.asarray(second + square, dtype=second.dtype)
