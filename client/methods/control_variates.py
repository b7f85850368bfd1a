"""SCAFFOLD at a site: what its gradients have in common with nobody else's is taken away from them.

Every gradient g becomes g − c_k + c. Afterwards c_k is the mean of the round's own gradients, before that change. Under
plain SGD this is the paper's option II, c_k − c + (w_global − w_k) / (E η), for w_global − w_k = η Σ (g − c_k + c).
Under momentum and AdamW, whose steps are no multiples of gradients, it still means what c_k should mean.

Source: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", algorithm 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from client.methods.base import Method
from common.arrays import Arrays, is_float, model_arrays
from common.attention.base import AttentionModel


class ControlVariates(Method):
    """`shared` is c and `kept` c_k, both by names of parameters; what is missing is 0. Told is the change of c_k."""

    keeps = True

    @contextmanager
    def attached(self, model: AttentionModel) -> Iterator[None]:
        """Put both on the model's device."""
        self._shift: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            own, common = (_tensor(arrays, name, parameter) for arrays in (self.begun.kept, self.begun.shared))
            self._shift[name] = common - own
            self._sums[name] = torch.zeros_like(parameter)
        yield

    def correct(self, model: AttentionModel) -> None:
        """Compute g − c_k + c, and remember g."""
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                self._sums[name] += parameter.grad
                parameter.grad += self._shift[name]

    def told(self, model: AttentionModel, steps: int) -> Arrays:
        """Give new c_k − old c_k for every floating array; 0 for buffers, which have no gradient."""
        self._new = {name: (total / max(1, steps)).cpu().numpy() for name, total in self._sums.items()}
        old = self.begun.kept
        return {
            name: self._new[name] - old.get(name, 0 * array) if name in self._new else np.zeros_like(array)
            for name, array in model_arrays(model).items()
            if is_float(array)
        }

    def kept(self) -> Arrays:
        """Give the new c_k."""
        return self._new


def _tensor(arrays: Arrays, name: str, like: Tensor) -> Tensor:
    return torch.from_numpy(arrays[name].copy()).to(like) if name in arrays else torch.zeros_like(like)
