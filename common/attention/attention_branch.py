"""Attention branch: a small classifier's own evidence map says where the features count."""

import math
from typing import Self

from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.spatial import CONVOLUTIONS, Norm, blank, mean_over_space, one_group
from common.errors import ConfigError


class AttentionBranch(AttentionLayer):
    """Strengthen the positions that a branch's class evidence points at.

    The branch turns features into one evidence map per class; `gate` is the submodule whose output, one map, is the
    attention tensor. With `classes` the branch also answers itself (`logits`), so that a loss can teach its maps
    classes; without, it has `hidden` maps without names and no answer: no parameter waits for a loss that nobody takes.

    Shapes: features [B, C, *S] -> [B, C, *S], gates [B, 1, *S].
    Source: Fukui et al. 2019, "Attention Branch Network: Learning of Attention Mechanism for Visual Explanation":
    (1 + M(x)) x.
    """

    def __init__(
        self, channels: int, classes: int = 0, hidden: int | None = None, dims: int = 2, norm: Norm = one_group
    ) -> None:
        super().__init__()
        kinds = classes or hidden or max(4, channels // 4)
        conv = CONVOLUTIONS[dims]
        self.evidence = nn.Sequential(norm(channels), conv(channels, kinds, 1, bias=False), norm(kinds), nn.ReLU())
        self.gate = nn.Sequential(conv(kinds, 1, 3, padding=1, bias=False), norm(1), nn.Sigmoid())
        self.answer = conv(kinds, classes, 1, bias=False) if classes else None

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the branch for so many channels, without classes.

        Raises:
            ConfigError: The grid has one position: there is nothing to choose, and a norm makes any such map zero.
        """
        if math.prod(grid) == 1:
            raise ConfigError(
                f"An attention branch on a grid of {grid}. Allowed are two positions or more; put it at an earlier, "
                f"finer stage."
            )
        return cls(channels, dims=len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One spatial gate."""
        return (AttentionSite("", "spatial-gate", "gate", grid=grid),)

    def logits(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Give the branch's own answer. Shapes: features [B, C, *S] -> [B, classes].

        Raises:
            ConfigError: The branch was built without classes.
        """
        if self.answer is None:
            raise ConfigError("The attention branch has 0 classes. Logits need one or more; build it with `classes`.")
        return mean_over_space(self.answer(self.evidence(blank(features, mask))), mask)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Strengthen positions and give the gates too."""
        features = blank(features, mask)
        gates: Tensor = self.gate(self.evidence(features))
        return features * (1 + gates), gates

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Strengthen positions."""
        return self.attend(features, mask)[0]
