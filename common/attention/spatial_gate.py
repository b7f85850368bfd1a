"""The spatial half of CBAM, alone."""

from typing import Self

from torch import Tensor

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.cbam import SpatialGate
from common.attention.spatial import Norm, blank


class SpatialAttention(AttentionLayer):
    """Weigh every position by the mean and the maximum of the channels around it.

    `gate` is the submodule whose output is the attention tensor.

    Shapes: features [B, C, *S] -> gated [B, C, *S], gates [B, 1, *S].
    Source: Woo et al. 2018, "CBAM: Convolutional Block Attention Module", eq. 3.
    """

    def __init__(self, kernel: int = 7, dims: int = 2, norm: Norm | None = None) -> None:
        super().__init__()
        self.gate = SpatialGate(kernel, dims, norm)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer; it is the same for any number of channels."""
        return cls(dims=len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One spatial gate."""
        return (AttentionSite("", "spatial-gate", "gate", grid=grid),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Gate the positions and give the gates too."""
        features = blank(features, mask)
        gates: Tensor = self.gate(features)
        return features * gates, gates

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Gate the positions."""
        return self.attend(features, mask)[0]
