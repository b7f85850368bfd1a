"""Prototypes at a site: features stay near the federation's mean of their class, and the site's own sums are told.

Source: Tan et al. 2022, "FedProto: Federated Prototype Learning across Heterogeneous Clients", eq. 7, the distance per
entry of the features, as in the authors' code.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from client.evaluation import BATCH
from client.methods.base import Begun, Method
from client.methods.features import features_of, listening
from common.arrays import Arrays
from common.attention.base import AttentionModel
from common.data.base import Batch


class Prototypes(Method):
    """`shared` is `prototypes` [K, D] and `counts` [K]; a class with a count of 0 has none and pulls nobody."""

    def __init__(self, begun: Begun) -> None:
        super().__init__(begun)
        self._classes = max(2, begun.task.outputs)
        device = next(begun.model.parameters()).device
        self._means, self._there = (
            torch.from_numpy(begun.shared[name].copy()).to(device) if begun.shared else None
            for name in ("prototypes", "counts")
        )

    @contextmanager
    def attached(self, model: AttentionModel) -> Iterator[None]:
        """Listen to the features."""
        with listening(model) as self._heard:
            yield

    def term(self, batch: Batch) -> Tensor | None:
        """Give λ · mean over images and entries of (z − C_y)²; images of a class without prototype count as 0."""
        weight, labels = self.begun.strategy.prototype, batch.labels
        if self._means is None or self._there is None or not weight or labels is None:
            return None
        apart = (self._heard.features.float() - self._means[labels]).square().mean(1)
        return weight * (apart * (self._there[labels] > 0)).mean()

    def told(self, model: AttentionModel, steps: int) -> Arrays:
        """Give sums of features and counts of images by class, of the model as it was trained."""
        data, mode = self.begun.data, model.training
        device = next(model.parameters()).device
        sums, counts = None, np.zeros(self._classes, np.float32)
        model.eval()
        for start in range(0, len(data), BATCH):
            batch = data.batch(np.arange(start, min(start + BATCH, len(data))), device)
            features = features_of(model, batch.images).double().cpu().numpy()
            assert batch.labels is not None  # config_checks lets only tasks of one label per image through
            chosen = np.eye(self._classes)[batch.labels.cpu().numpy()]
            sums = chosen.T @ features + (0 if sums is None else sums)
            counts += chosen.sum(0).astype(np.float32)
        model.train(mode)
        return {"sums": np.asarray(sums, np.float32), "counts": counts}
