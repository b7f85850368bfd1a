"""Mixture of expert convolutions: the image decides how much each expert counts."""

from typing import Self

import torch
from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.spatial import CONVOLUTIONS, across, blank, mean_over_space
from common.errors import ConfigError


class ExpertMixture(AttentionLayer):
    """Add the answers of M expert convolutions, weighted per image by a softmax over the experts.

    Convolution is linear, so this equals one convolution with a kernel mixed per image (dynamic convolution); written
    as a sum of answers, every expert keeps the batch as its first axis. `gate` is the submodule whose output is the
    attention tensor.

    Shapes: features [B, C, *S] -> mixed [B, C, *S], weights [B, M, 1] that sum to one over M.
    Source: Chen et al. 2020, "Dynamic Convolution: Attention over Convolution Kernels", section 3:
    y = sum_m g_m(x) (W_m x + b_m); the mixture itself is Jacobs et al. 1991, "Adaptive Mixtures of Local Experts".

    Raises:
        ConfigError: One expert has nobody to share with; a temperature is positive.
    """

    def __init__(
        self,
        channels: int,
        experts: int = 4,
        reduction: int = 4,
        temperature: float = 1,
        dims: int = 2,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        if experts < 2 or temperature <= 0:
            raise ConfigError(
                f"A mixture of {experts} experts at temperature {temperature}. Allowed are two experts or more and a "
                f"temperature above 0; Chen et al. take 4 and 30."
            )
        hidden = max(4, channels // reduction)
        first = nn.Linear(channels, hidden)
        # Channel means are small: with a random bias a hidden unit would be on, or dead, for every image.
        nn.init.zeros_(first.bias)
        self.temperature = temperature
        self.evidence = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, experts))
        self.gate = nn.Sequential(nn.Softmax(1), nn.Unflatten(1, (experts, 1)))
        conv = CONVOLUTIONS[dims]
        self.experts = nn.ModuleList(conv(channels, channels, kernel, padding=kernel // 2) for _ in range(experts))

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give four experts for so many channels."""
        return cls(channels, dims=len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One weight per expert."""
        return (AttentionSite("", "branch", "gate", branches=len(self.experts)),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix the experts' answers and give their weights too."""
        features = blank(features, mask)
        weights: Tensor = self.gate(self.evidence(mean_over_space(features, mask)) / self.temperature)
        answers = [across(weights[:, m], features) * expert(features) for m, expert in enumerate(self.experts)]
        return torch.stack(answers).sum(0), weights

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix the experts' answers."""
        return self.attend(features, mask)[0]
