"""MOON at a site: −log e^(s(z, z_g)/τ) / (e^(s(z, z_g)/τ) + e^(s(z, z_p)/τ)) beside the loss, s the cosine.

z are the features of the model that trains, z_g those of the global one, z_p those of this site's own model at the end
of its last round. The paper adds a projection head of two layers; here s is taken of the features themselves.

Source: Li, He, Song 2021, "Model-Contrastive Federated Learning", eq. 3.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Begun, Method
from client.methods.features import features_of, listening
from common.arrays import Arrays, load_arrays, model_arrays
from common.attention.base import AttentionModel
from common.data.base import Batch


class Contrast(Method):
    """`kept` are the arrays of the site's last model; before its first round there is no term."""

    keeps = True

    def __init__(self, begun: Begun) -> None:
        super().__init__(begun)
        self._others: tuple[AttentionModel, ...] = ()
        if begun.kept and begun.strategy.contrast:
            previous = _frozen(begun.model)
            load_arrays(previous, begun.kept)
            self._others = (_frozen(begun.model), previous)

    @contextmanager
    def attached(self, model: AttentionModel) -> Iterator[None]:
        """Listen to the features."""
        with listening(model) as self._heard:
            yield

    def term(self, batch: Batch) -> Tensor | None:
        """Give the weighted term, mean over the batch."""
        if not self._others:
            return None
        features, settings = self._heard.features.float(), self.begun.strategy
        near, far = (
            F.cosine_similarity(features, features_of(other, batch.images), dim=1) / settings.temperature
            for other in self._others
        )
        return settings.contrast * F.softplus(far - near).mean()

    def told(self, model: AttentionModel, steps: int) -> Arrays:
        """Tell nothing, and take the arrays."""
        self._arrays = model_arrays(model)
        return {}

    def kept(self) -> Arrays:
        """Give the site's model."""
        return self._arrays


def _frozen(model: AttentionModel) -> AttentionModel:
    return deepcopy(model).eval().requires_grad_(False)
