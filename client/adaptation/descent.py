"""Gradient steps that are taken only when they are finite."""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from client.adaptation.base import Counts, MethodSettings


class DescentSettings(MethodSettings):
    """Settings of methods that descend a gradient."""

    optimizer: Literal["adam", "sgd"] = Field(default="sgd", description="how a gradient becomes a step")
    learning_rate: float = Field(default=2.5e-4, gt=0, le=10, description="step size")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd; the first decay of adam")


class Descent:
    """An optimizer over `parameters`, whose gradients it switches on."""

    def __init__(self, parameters: Iterable[nn.Parameter], settings: DescentSettings) -> None:
        self.parameters = list(parameters)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self._settings = settings
        self.forget()

    def forget(self) -> None:
        """Start the optimizer's own memory anew."""
        settings = self._settings
        for parameter in self.parameters:
            parameter.grad = None
        self.optimizer: torch.optim.Optimizer
        if settings.optimizer == "adam":
            self.optimizer = torch.optim.Adam(
                self.parameters, lr=settings.learning_rate, betas=(settings.momentum, 0.999)
            )
        else:
            self.optimizer = torch.optim.SGD(self.parameters, lr=settings.learning_rate, momentum=settings.momentum)

    def gradient(self, loss: Tensor) -> bool:
        """Put the gradient of a scalar into the parameters; say whether it is finite, and leave none if it is not."""
        self.optimizer.zero_grad()
        if not bool(loss.isfinite()) or not loss.requires_grad:
            return False
        loss.backward()  # type: ignore[no-untyped-call]
        if all(bool(p.grad.isfinite().all()) for p in self.parameters if p.grad is not None):
            return True
        self.optimizer.zero_grad()
        return False

    def step(self, loss: Tensor, counts: Counts) -> bool:
        """Take one step down the loss, or none if it is not finite; count either."""
        if not self.gradient(loss):
            counts.skipped += 1
            return False
        self.apply(counts)
        return True

    def apply(self, counts: Counts) -> None:
        """Step along the gradient that is there, and count it."""
        self.optimizer.step()
        counts.updates += 1
        self.optimizer.zero_grad()
