"""Statistics of self-attention maps, with a class token or without. All per image, each a block of norm at most one."""

import math
from functools import cached_property

import torch
from torch import Tensor

from common.attention.base import AttentionSite, Grid
from common.attention.histograms import TINY, head_divergence, normalised_entropy, soft_histogram
from common.attention.pooling import pool_cells


class TokenMaps:
    """Attention of one layer and what several blocks need of it, computed once.

    Shapes: rows [B, H, N, N], a query's attention over the keys in the last axis, sum 1; P patches = grid, N = P + 1
    with a class token, which is token 0.
    """

    def __init__(self, tensor: Tensor, site: AttentionSite) -> None:
        rows = tensor.float()
        if tensor.dtype != torch.float32:  # a softmax in float32 sums to one already; bfloat16 rounds to 1/256
            rows = rows / rows.sum(-1, keepdim=True).clamp_min(TINY)
        self.rows = rows
        self.grid = site.grid or (1, rows.shape[-1] - int(site.cls))
        self.first = int(site.cls)

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy of each row over log N, [B, H, N]."""
        return normalised_entropy(self.rows)

    @cached_property
    def received(self) -> Tensor:
        """Attention that each token receives, mean over heads and queries, [B, N], sum 1."""
        return self.rows.mean((1, 2))

    @cached_property
    def distance(self) -> Tensor:
        """Mean distance from a patch to what it looks at, over the grid's diagonal, [B, H, P] in [0, 1].

        The class token has no place: its row and column are left out and the rest of each row is renormalised. A patch
        that looks at no patch looks no way: 0.
        """
        patches = self.rows[:, :, self.first :, self.first :]
        apart = patch_distances(self.grid, patches.device)
        return ((patches * apart).sum(-1) / patches.sum(-1).clamp_min(TINY)).clamp(0, 1)

    def cls_map(self) -> Tensor:
        """Where the class token looks: its row over the patches, renormalised, mean over heads, [B, cells]."""
        return self._pool(cls_row(self.rows))

    def received_map(self) -> Tensor:
        """Which patches are looked at: attention received over the patches, [B, cells]."""
        patches = self.received[:, self.first :] + TINY
        return self._pool(patches / patches.sum(1, keepdim=True))

    def ent_hist(self) -> Tensor:
        """Histogram of the rows' entropies over heads and queries, [B, 6]."""
        return soft_histogram(self.entropy.flatten(1), 6)

    def head_ent(self) -> Tensor:
        """Mean entropy of each head, [B, H]."""
        return self.entropy.mean(2)

    def dist_hist(self) -> Tensor:
        """Histogram of the attention distances over heads and patches, [B, 8]."""
        return soft_histogram(self.distance.flatten(1), 8)

    def head_dist(self) -> Tensor:
        """Mean attention distance of each head, [B, H]."""
        return self.distance.mean(2)

    def sink(self) -> Tensor:
        """Most attention that one token receives on average, [B, 1]: near one when a token swallows it all."""
        return self.received.amax(1, keepdim=True).clamp(0, 1)

    def cls_self(self) -> Tensor:
        """Attention of the class token to itself, mean over heads, [B, 1]."""
        return self.rows[:, :, 0, 0].mean(1, keepdim=True).clamp(0, 1)

    def head_div(self) -> Tensor:
        """How differently the heads look, [B, 1]: 0 all alike, 1 disjoint."""
        return head_divergence(self.rows, self.entropy)[:, None]

    def _pool(self, patches: Tensor) -> Tensor:
        return pool_cells(patches, self.grid)


def cls_row(rows: Tensor) -> Tensor:
    """Give the class token's attention over the patches, renormalised per head, then averaged over heads.

    Shapes: rows [B, H, N, N] -> [B, N - 1], sum 1.
    """
    patches = rows[:, :, 0, 1:] + TINY
    return (patches / patches.sum(-1, keepdim=True)).mean(1)


def patch_distances(grid: Grid, device: torch.device) -> Tensor:
    """Give the distance between patch centres over the grid's diagonal, [P, P] in [0, 1], patches row by row."""
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in grid]
    places = torch.cartesian_prod(*axes).reshape(-1, len(grid))
    apart = (places[:, None] - places[None]).square().sum(-1).sqrt()
    return apart / max(1.0, math.hypot(*(size - 1 for size in grid)))
