"""Selective kernels: each channel chooses between branches that see more or less around."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.spatial import CONVOLUTIONS, Norm, across, blank, mean_over_space, one_group


@dataclass(frozen=True, slots=True)
class Branches:
    """How many branches there are, in how many groups each convolves, and whether each sees its own part of C.

    `hidden` is the width of what they decide from; None: half the channels, at least 4 (the paper has at least 32).
    """

    count: int = 2
    groups: int = 1
    hidden: int | None = None
    split: bool = False


class SelectiveKernel(AttentionLayer):
    """Mix branches of growing dilation, with weights per channel that all branches decide together.

    Branch m is a 3 x 3 (x 3) convolution of dilation m + 1, a norm and a ReLU. `gate` is the submodule whose output is
    the attention tensor.

    Shapes: features [B, C, *S] -> mixed [B, C, *S], weights [B, M, C] that sum to one over M.
    Source: Li et al. 2019, "Selective Kernel Networks", eq. 1-6 (fuse: mean of the sum, reduce; select: softmax).
    """

    def __init__(self, channels: int, branches: Branches | None = None, dims: int = 2, norm: Norm = one_group) -> None:
        super().__init__()
        self.wiring = wiring = branches or Branches()
        hidden = wiring.hidden or max(4, channels // 2)
        given = channels // wiring.count if wiring.split else channels

        def branch(step: int) -> nn.Sequential:
            conv = CONVOLUTIONS[dims](given, channels, 3, padding=step, dilation=step, groups=wiring.groups, bias=False)
            return nn.Sequential(conv, norm(channels), nn.ReLU())

        self.branches = nn.ModuleList(branch(step + 1) for step in range(wiring.count))
        self.reduce = nn.Sequential(nn.Linear(channels, hidden, bias=False), norm(hidden), nn.ReLU())
        self.select = nn.Linear(hidden, wiring.count * channels, bias=False)
        self.gate = nn.Sequential(nn.Unflatten(1, (wiring.count, channels)), nn.Softmax(1))

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give two branches for so many channels."""
        return cls(channels, dims=len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One weight per branch and channel."""
        return (AttentionSite("", "branch", "gate", branches=self.wiring.count),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix the branches and give their weights too."""
        features = blank(features, mask)
        parts = features.chunk(len(self.branches), 1) if self.wiring.split else [features] * len(self.branches)
        answers = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        summed = torch.stack(answers).sum(0)
        weights: Tensor = self.gate(self.select(self.reduce(mean_over_space(summed, mask))))
        mixed = [across(weights[:, m], answer) * answer for m, answer in enumerate(answers)]
        return torch.stack(mixed).sum(0), weights

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix the branches."""
        return self.attend(features, mask)[0]
