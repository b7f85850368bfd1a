"""FedDyn at a site: a linear term that lets each site's optimum be the federation's.

The loss gains −⟨h_k, w⟩ + (α/2)‖w − w_global‖²; afterwards h_k ← h_k − α (w_k − w_global). The second part is the
proximal term with μ = α, and the first one's gradient is −h_k.

Source: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", algorithm 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from client.methods.base import Method
from common.arrays import Arrays
from common.attention.base import AttentionModel


class DynamicRegulariser(Method):
    """`kept` is h_k, by names of parameters; what is missing is 0. Nothing is told."""

    keeps = True

    @contextmanager
    def attached(self, model: AttentionModel) -> Iterator[None]:
        """Remember where training begins."""
        kept, parameters = self.begun.kept, dict(model.named_parameters())
        self._start = {name: each.detach().clone() for name, each in parameters.items()}
        self._pull = {
            name: torch.from_numpy(kept[name].copy()).to(each) if name in kept else torch.zeros_like(each)
            for name, each in parameters.items()
        }
        yield

    def correct(self, model: AttentionModel) -> None:
        """Take h_k off the gradient."""
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                parameter.grad -= self._pull[name]

    def told(self, model: AttentionModel, steps: int) -> Arrays:
        """Tell nothing; compute the new h_k."""
        alpha = self.begun.strategy.dynamic
        self._new = {
            name: (self._pull[name] - alpha * (each.detach() - self._start[name])).cpu().numpy()
            for name, each in model.named_parameters()
        }
        return {}

    def kept(self) -> Arrays:
        """Give the new h_k."""
        return self._new
