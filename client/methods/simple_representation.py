"""FedSR at a site: a ‖z‖² + b KL(p(z | x) ‖ r(z | y)) beside the loss, z drawn once for each image.

Source: Nguyen et al. 2022, "FedSR: A Simple and Effective Domain Generalization Method for Federated Learning",
eqs. 10 and 14.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from client.methods.base import Method
from common.attention.base import AttentionModel
from common.data.base import Batch
from common.errors import ConfigError
from common.models.representation import Representation


class SimpleRepresentation(Method):
    """Reads features and z of the forward pass; the law r of each class is a part of the model and is averaged."""

    @contextmanager
    def attached(self, model: AttentionModel) -> Iterator[None]:
        """Listen to the representation."""
        found = getattr(model, "representation", None)
        if not isinstance(found, Representation):
            raise ConfigError("strategy 'fedsr' draws representations. Set 'model.representation' to 'gaussian'.")
        self._representation = found
        handle = found.register_forward_hook(self._hear)
        try:
            yield
        finally:
            handle.remove()

    def _hear(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        self._features, self._drawn = inputs[0], output

    def term(self, batch: Batch) -> Tensor | None:
        """Give both terms, mean over the batch."""
        assert batch.labels is not None  # config_checks lets only tasks of one label per image through
        settings, mean = self.begun.strategy, self._features.float()
        deviation = self._representation.deviation(self._features).float()
        length = self._drawn.float().square().sum(1)
        apart = divergence(mean, deviation, *self._representation.laws.of(batch.labels))
        return (settings.shrink * length + settings.invariance * apart).mean()


def divergence(mean: Tensor, deviation: Tensor, other: Tensor, wide: Tensor) -> Tensor:
    """KL(N(mean, deviation²) ‖ N(other, wide²)) of independent entries, summed. Shapes: [B, D] each -> [B]."""
    ratio = (deviation / wide).square()
    return 0.5 * (ratio + ((mean - other) / wide).square() - 1 - torch.log(ratio)).sum(1)
