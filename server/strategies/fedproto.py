"""Prototypes: each class has a mean representation in the whole federation, and sites keep theirs near it.

C_y = Σ_k (sum of features of y at k) / Σ_k (their number). The paper exchanges nothing else and averages no weights;
here weights are averaged as well, for a model that sites which never trained can use.

Source: Tan et al. 2022, "FedProto: Federated Prototype Learning across Heterogeneous Clients", eqs. 3, 6 and 7.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from common.arrays import Arrays, all_finite, is_float
from server.strategies.base import Weighted
from server.strategies.fedavg import FedAvg

PROTOTYPES, SUMS, COUNTS = "prototypes", "sums", "counts"


class FedProto(FedAvg):
    """FedAvg with prototypes (`client/methods/prototypes.py`). Sites tell `sums` [K, D] and `counts` [K]."""

    method = "prototypes"

    def meet(self, sites: Mapping[str, int], model: nn.Module) -> None:
        """Learn besides of what shape prototypes are."""
        super().meet(sites, model)
        head = dict(model.named_parameters())["head.weight"]
        self._shape: tuple[int, ...] = (max(2, head.shape[0]), head.shape[1])

    def shared(self) -> Arrays:
        """Send the prototypes, and on how many images each rests."""
        return self.state

    def unfit(self, told: Arrays, arrays: Arrays) -> str:
        """Expect sums and counts of one shape, on counts of 0 or more."""
        if set(told) != {SUMS, COUNTS} or not all(map(is_float, told.values())) or not all_finite(told):
            return "told-numbers"
        sums, counts = told[SUMS], told[COUNTS]
        shape = getattr(self, "_shape", sums.shape)
        fits = sums.ndim == 2 and sums.shape == shape and counts.shape == shape[:1] and counts.min() >= 0
        return "" if fits else "told-shape"

    def direction(self, updates: Sequence[Weighted]) -> Arrays:
        """Make the prototypes anew; a class that no site of the round has keeps its own."""
        ordered = sorted(updates, key=lambda item: item.site)
        sums = np.sum([item.told[SUMS].astype(np.float64) for item in ordered], axis=0)
        counts = np.sum([item.told[COUNTS].astype(np.float64) for item in ordered], axis=0)
        old, before = self.state.get(PROTOTYPES, np.zeros_like(sums)), self.state.get(COUNTS, np.zeros_like(counts))
        here = counts > 0
        means = np.divide(sums, counts[:, None], out=np.zeros_like(sums), where=here[:, None])
        self.state = {
            PROTOTYPES: np.where(here[:, None], means, old).astype(np.float32),
            COUNTS: np.where(here, counts, before).astype(np.float32),
        }
        return super().direction(updates)
