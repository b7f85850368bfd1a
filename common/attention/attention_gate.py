"""Additive attention gate: a coarse, deep signal decides which parts of a fine skip connection pass."""

from typing import ClassVar, Self

from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.attention.spatial import CONVOLUTIONS, Norm, blank, one_group, resize


class AttentionGate(AttentionLayer):
    """Keep the positions of `features` that the gating signal supports.

    `gate` is the submodule whose output is the attention tensor, on a grid half as fine as the features. GroupNorm
    before the ReLU stands for the BatchNorm of published code, so that no statistic crosses images. The gated features
    pass no further convolution, unless `project` names the norm that follows one (the W of published code).

    Shapes: features [B, C, *S], gating [B, G, *s] -> gated [B, C, *S], gates [B, 1, *(S // 2)] in (0, 1).
    Source: Oktay et al. 2018, "Attention U-Net: Learning Where to Look for the Pancreas", eq. 1-2 (additive form).
    """

    takes: ClassVar[Inputs] = "skip"

    def __init__(
        self,
        channels: int,
        gating: int | None = None,
        inner: int | None = None,
        dims: int = 2,
        norm: Norm = one_group,
        project: Norm | None = None,
    ) -> None:
        super().__init__()
        inner = inner or max(4, channels)
        conv = CONVOLUTIONS[dims]
        self.theta = conv(channels, inner, 2, stride=2, bias=False)
        self.phi = conv(gating or channels, inner, 1)
        self.norm: nn.Module = norm(inner)
        self.gate = nn.Sequential(nn.ReLU(), conv(inner, 1, 1), nn.Sigmoid())
        self.project = nn.Sequential(conv(channels, channels, 1), project(channels)) if project else nn.Identity()

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the gate for a skip connection of so many channels and `other` channels of gating."""
        return cls(channels, other or channels, dims=len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One gate per position."""
        return (AttentionSite("", "attention-gate", "gate", grid=grid),)

    def attend(  # type: ignore[override]
        self, features: Tensor, gating: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gate the positions and give the gates too."""
        features = blank(features, mask)
        fine: Tensor = self.theta(features)
        gates: Tensor = self.gate(self.norm(fine + resize(self.phi(gating), fine)))
        return self.project(features * resize(gates, features)), gates

    def forward(self, features: Tensor, gating: Tensor, mask: Tensor | None = None) -> Tensor:
        """Gate the positions."""
        return self.attend(features, gating, mask)[0]
