"""Reverse attention: look where a coarse prediction has not yet found anything."""

from typing import ClassVar, Self

from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.attention.spatial import CONVOLUTIONS, blank, resize


class Doubt(nn.Module):
    """One minus the sigmoid of a prediction. Shapes: logits [B, 1, *S] -> gates [B, 1, *S] in (0, 1)."""

    def forward(self, logits: Tensor) -> Tensor:
        """Give 1 - sigmoid(x), written as sigmoid(-x), which does not round to 0 where the prediction is sure."""
        return (-logits).sigmoid()


class ReverseAttention(AttentionLayer):
    """Erase from the features what the deeper level predicts, so that the rest is looked at.

    `predict` reads the coarse prediction off the deeper features, one logit per position; `gate` is the submodule whose
    output is the attention tensor. A deeper level that is a prediction itself ([B, 1, *s] logits) is used as it is.

    Shapes: features [B, C, *S], gating [B, G, *s] -> gated [B, C, *S], gates [B, 1, *S].
    Source: Chen et al. 2018, "Reverse Attention for Salient Object Detection": x (1 - sigmoid(up(p))); CaraNet
    (Lou et al. 2022) puts it behind axial attention.
    """

    takes: ClassVar[Inputs] = "skip"

    def __init__(self, gating: int, dims: int = 2) -> None:
        super().__init__()
        self.predict = nn.Identity() if gating == 1 else CONVOLUTIONS[dims](gating, 1, 1)
        self.gate = Doubt()

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer for `other` channels of deeper features."""
        return cls(other or channels, len(grid))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One gate per position."""
        return (AttentionSite("", "attention-gate", "gate", grid=grid),)

    def attend(  # type: ignore[override]
        self, features: Tensor, gating: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Erase what is predicted and give the gates too."""
        gates: Tensor = self.gate(resize(self.predict(gating), features))
        return blank(features, mask) * gates, gates

    def forward(self, features: Tensor, gating: Tensor, mask: Tensor | None = None) -> Tensor:
        """Erase what is predicted."""
        return self.attend(features, gating, mask)[0]
