"""The site answers from a mixture of its own model and the shared one, and learns how much of each: APFL.

v̄ = α v + (1 − α) w. In each step w follows ∇F(w), v and α follow the gradients of F(v̄), all on one batch; α is put back
into [0, 1]. v has its own running statistics, of the mixture. All three share optimizer and learning rate.

Source: Deng, Kamani, Mahdavi 2020, "Adaptive Personalized Federated Learning", algorithm 1 and eq. 10.
"""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from client.own import COPY, MIXED, WEIGHT, below, under
from client.personal.base import LocalRound, Outcome
from client.training import class_weights
from common.arrays import Arrays, load_arrays, model_arrays
from common.data.base import Batch
from common.device import precision


def train_mixture(round_: LocalRound) -> Outcome:
    """Train the shared model and beside it the site's own and its weight."""
    round_.load(round_.start())
    mixture = Mixture(round_)
    trained = round_.learn(replace(round_.extras, beside=mixture))
    shared = round_.outcome(trained)
    return replace(shared, kept={**shared.kept, **mixture.kept()})


class Mixture:
    """A term of the loss with parameters of its own: F(α v + (1 − α) w), in which w is a constant."""

    def __init__(self, round_: LocalRound) -> None:
        self.round, self.shared = round_, dict(round_.model.named_parameters())
        self.device = next(iter(self.shared.values())).device
        # Copied before anything listens to the model: an ear at this one would hear two passes a step.
        self.own = deepcopy(round_.model)
        load_arrays(self.own, {**round_.start(), **below(round_.kept, COPY), **below(round_.kept, MIXED)})
        self.own.train()
        at = float(round_.kept.get(WEIGHT, np.array(round_.strategy.mixing)))
        learnt = round_.strategy.learn_mixing
        self.alpha = torch.nn.Parameter(torch.tensor(at, device=self.device), requires_grad=learnt)
        self.weights = class_weights(round_.task, round_.data, round_.settings, self.device)

    def groups(self) -> list[dict[str, Any]]:
        """Give what the optimizer trains besides the model; decay would draw α to the shared model."""
        learnt = [{"params": [self.alpha], "weight_decay": 0.0}] if self.alpha.requires_grad else []
        return [{"params": list(self.own.parameters())}, *learnt]

    def __call__(self, batch: Batch) -> Tensor:
        """Give the mixture's loss on a batch."""
        self._put_back()
        mixed = {
            name: self.alpha * own + (1 - self.alpha) * self.shared[name].detach()
            for name, own in self.own.named_parameters()
        }
        with precision(self.device, self.round.settings.amp):
            logits = functional_call(self.own, mixed, (batch.images,))
        return self.round.task.loss(logits, batch, self.weights)

    def kept(self) -> Arrays:
        """Give the site's table of it: parameters are mixed, statistics are the mixture's already."""
        self._put_back()
        arrays, names = model_arrays(self.own), {name for name, _ in self.own.named_parameters()}
        return {
            **under(MIXED, {name: array for name, array in arrays.items() if name in names}),
            **under(COPY, {name: array for name, array in arrays.items() if name not in names}),
            WEIGHT: np.array(self.alpha.item(), np.float64),
        }

    def _put_back(self) -> None:
        with torch.no_grad():
            self.alpha.clamp_(0, 1)
