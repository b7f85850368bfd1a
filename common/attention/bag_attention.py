"""Attention-based pooling of a bag of instances, plain and gated."""

import math
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs


class BagAttention(AttentionLayer):
    """Sum up a bag by the weights α that each instance earns on its own; the order of instances changes nothing.

    α_k = softmax_k(w · tanh(V h_k)), z = Σ_k α_k h_k. The score has no bias, which the softmax would undo
    (`score_bias` is for weights that carry one). A bag with no real instance gives zeros.

    Shapes: instances [B, N, D] -> summary [B, D], weights [B, N], sum one.
    Source: Ilse et al. 2018, "Attention-based Deep Multiple Instance Learning", eq. 7-8.
    """

    takes: ClassVar[Inputs] = "bag"
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __init__(self, dim: int, hidden: int = 128, gated: bool = False, score_bias: bool = False) -> None:
        super().__init__()
        self.content = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh())
        self.gate = nn.Sequential(nn.Linear(dim, hidden), nn.Sigmoid()) if gated else None
        self.score = nn.Linear(hidden, 1, bias=score_bias)
        self.weights = nn.Softmax(dim=-1)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with as many hidden units as instances have entries, 128 at most."""
        return cls(channels, min(128, channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One weight per instance."""
        return (AttentionSite("", "pooling", "weights"),)

    def attend(self, instances: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Sum up and give the weights too."""
        weights = self.weigh(instances, mask)
        real = weights if mask is None else weights * mask
        kept = instances if mask is None else instances.masked_fill(~mask[..., None], 0)
        return torch.einsum("bn,bnd->bd", real, kept), weights

    def weigh(self, instances: Tensor, mask: Tensor | None = None) -> Tensor:
        """Give the weights, also of many bags at once. Shapes: [B, …, n, D] -> [B, …, n]."""
        hidden = self.content(instances)
        if self.gate is not None:
            hidden = hidden * self.gate(instances)
        weights: Tensor = self.weights(seen(self.score(hidden)[..., 0], mask))
        return weights

    def forward(self, instances: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sum up."""
        return self.attend(instances, mask)[0]


class GatedBagAttention(BagAttention):
    """The same with a gate beside the tanh, which is nearly linear around 0: tanh(V h) ⊙ sigmoid(U h).

    Source: Ilse et al. 2018, eq. 9.
    """

    def __init__(self, dim: int, hidden: int = 128, score_bias: bool = False) -> None:
        super().__init__(dim, hidden, gated=True, score_bias=score_bias)


def seen(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Keep masked instances out of a softmax; where all are masked none is, for NaN's sake. Shapes: [B, …, n]."""
    if mask is None:
        return scores
    return scores.masked_fill(~(mask | ~mask.any(-1, keepdim=True)), -math.inf)
