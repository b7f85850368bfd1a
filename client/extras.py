"""What local training adds to the task's loss: proximal term, pull, guidance, a model beside, a strategy's method."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from client.guidance.guidance import Guidance
from client.methods.base import Method
from client.pull import Pull
from common.attention.base import AttentionModel
from common.data.base import Batch

Added = Callable[[Batch], Tensor | None]


class Beside(Protocol):
    """A term with parameters of its own, which the optimizer trains too."""

    def groups(self) -> list[dict[str, Any]]:
        """Give its parameters as groups of an optimizer."""
        ...

    def __call__(self, batch: Batch) -> Tensor:
        """Give the term on a batch, a scalar."""
        ...


@dataclass(frozen=True, slots=True)
class Extras:
    """`mu` weighs the proximal term (μ/2)·‖w − w_global‖² (Li et al. 2020, eq. 2); all may be absent."""

    mu: float = 0.0
    guidance: Guidance | None = None
    pull: Pull | None = None
    beside: Beside | None = None
    method: Method | None = None

    @property
    def radius(self) -> float:
        """Radius of sharpness-aware minimisation that the method asks for."""
        return self.method.radius if self.method else 0.0

    def correct(self, model: AttentionModel) -> None:
        """Let the method change the gradients that the optimizer is about to see."""
        if self.method:
            self.method.correct(model)

    @contextmanager
    def attached(self, model: AttentionModel) -> Iterator[Added]:
        """Give, while entered, what is added to the loss of the batch that `model` just saw; None for nothing."""
        anchor = [parameter.detach().clone() for parameter in model.parameters()] if self.mu else []
        with ExitStack() as stack:
            wanted = self.guidance is not None and self.guidance.terms
            pull = self.pull.bound(model) if self.pull else None
            guide = stack.enter_context(self.guidance.watching(model)) if self.guidance and wanted else None
            if self.method:
                stack.enter_context(self.method.attached(model))

            def added(batch: Batch) -> Tensor | None:
                parts = [proximal(model, anchor, self.mu)] if self.mu else []
                if pull is not None:
                    parts.append(pull())
                if guide is not None:
                    parts.append(guide(batch).mean())
                if self.beside is not None:
                    parts.append(self.beside(batch))
                term = self.method.term(batch) if self.method else None
                if term is not None:
                    parts.append(term)
                return torch.stack(parts).sum() if parts else None

            yield added

    def groups(self) -> list[dict[str, Any]]:
        """Give what the optimizer trains besides the model."""
        return self.beside.groups() if self.beside else []


PLAIN = Extras()


def proximal(model: AttentionModel, anchor: list[Tensor], mu: float) -> Tensor:
    """Compute (μ/2)·Σ‖w − w_global‖², squared as in the paper."""
    distance = [(now - then).square().sum() for now, then in zip(model.parameters(), anchor, strict=True)]
    return 0.5 * mu * torch.stack(distance).sum()
