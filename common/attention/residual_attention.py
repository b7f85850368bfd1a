"""Residual attention: a small hourglass beside the trunk says what of the trunk to strengthen."""

from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.residual_unit import ResidualUnit
from common.attention.spatial import CONVOLUTIONS, Norm, blank, one_group


class ResidualAttention(AttentionLayer):
    """Strengthen each feature of the trunk by a mask in (0, 1) that has seen a wider surrounding.

    The mask branch goes down (maximum over 3 positions per axis, every second one), through two residual units, and up
    again (linearly, corners aligned), where the trunk is added; two 1 x 1 convolutions and a sigmoid make the mask.
    This is the last of the paper's three stages; the earlier ones go down further. `gate` is the submodule whose output
    is the attention tensor.

    Shapes: features [B, C, *S] -> [B, C, *S], mask [B, C, *S].
    Source: Wang et al. 2017, "Residual Attention Network for Image Classification", eq. 3: (1 + M(x)) T(x), and fig. 2.
    """

    def __init__(self, channels: int, dims: int = 2, norm: Norm = one_group) -> None:
        super().__init__()
        conv = CONVOLUTIONS[dims]
        self.first = ResidualUnit(channels, dims, norm)
        self.trunk = nn.Sequential(*(ResidualUnit(channels, dims, norm) for _ in range(2)))
        self.down = nn.MaxPool2d(3, 2, 1) if dims == 2 else nn.MaxPool3d(3, 2, 1)
        self.low = nn.Sequential(*(ResidualUnit(channels, dims, norm) for _ in range(2)))
        halves = [(norm(channels), nn.ReLU(), conv(channels, channels, 1, bias=False)) for _ in range(2)]
        self.gate = nn.Sequential(*halves[0], *halves[1], nn.Sigmoid())
        self.last = ResidualUnit(channels, dims, norm)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer for so many channels."""
        return cls(channels, len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One gate per feature."""
        return (AttentionSite("", "feature-gate", "gate", grid=grid),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Strengthen features and give the mask too."""
        start = self.first(blank(features, mask))
        trunk = self.trunk(start)
        wide = self.low(self.down(start))
        mode = "bilinear" if features.ndim == 4 else "trilinear"
        gates: Tensor = self.gate(F.interpolate(wide, size=trunk.shape[2:], mode=mode, align_corners=True) + trunk)
        strengthened: Tensor = self.last((1 + gates) * trunk)
        return strengthened, gates

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Strengthen features."""
        return self.attend(features, mask)[0]
