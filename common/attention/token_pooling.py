"""Hierarchical pooling: instances to groups, groups to the bag, each by attention."""

from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from common.attention.bag_attention import BagAttention
from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs


class TokenPooling(AttentionLayer):
    """Cut a bag into groups of `size` in its order, sum up each, then sum up the groups.

    As words make sentences and sentences a document: slices of one series, patches of one region. The last group is
    padded, and padding gets no weight.

    Shapes: instances [B, N, D] -> summary [B, D], weights in groups [B, G, size], weights of groups [B, G].
    Source: Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", eq. 5-10, without the
    recurrent encoders and with Ilse's scores.
    """

    takes: ClassVar[Inputs] = "bag"
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __init__(self, dim: int, size: int = 8, hidden: int = 128) -> None:
        super().__init__()
        self.size = size
        self.inner = BagAttention(dim, hidden)
        self.outer = BagAttention(dim, hidden)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with groups of eight instances."""
        return cls(channels, hidden=min(128, channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """Weights inside the groups, and of the groups."""
        return (
            AttentionSite("instances", "pooling", "inner.weights"),
            AttentionSite("groups", "pooling", "outer.weights"),
        )

    def attend(  # type: ignore[override]
        self, instances: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sum up twice and give both weights."""
        batch, count = instances.shape[:2]
        real = torch.ones(batch, count, dtype=torch.bool, device=instances.device) if mask is None else mask
        gap = -count % self.size
        groups = torch.unflatten(F.pad(instances, (0, 0, 0, gap)), 1, (-1, self.size))
        real = torch.unflatten(F.pad(real, (0, gap)), 1, (-1, self.size))
        summaries, inside = self._groups(groups, real)
        summary, among = self.outer.attend(summaries, real.any(-1))
        return summary, inside, among

    def forward(self, instances: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sum up."""
        return self.attend(instances, mask)[0]

    def _groups(self, groups: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Sum up every group, groups beside the batch and not in it. Shapes: [B, G, n, D], [B, G, n] -> [B, G, D]."""
        weights = self.inner.weigh(groups, real)
        kept = groups.masked_fill(~real[..., None], 0)
        return torch.einsum("bgn,bgnd->bgd", weights * real, kept), weights
