"""Divided space-time attention: each place looks along time, then each frame looks around."""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from common.attention.base import AttentionLayer, AttentionSite, Grid, Inputs
from common.attention.heads import Heads, look
from common.attention.self_attention import most_heads


class DividedSpaceTime(AttentionLayer):
    """Two attentions with shortcuts: over the frames at the same place, then over the places of the same frame.

    A volume's depth, or the phases of a contrast series, may stand for time. Places and frames stay beside the batch.

    Shapes: frames [B, T, N, D] -> [B, T, N, D]; maps over time [B, N, heads, T, T], over space [B, T, heads, N, N].
    Source: Bertasius et al. 2021, "Is Space-Time Attention All You Need for Video Understanding?", eq. 10-11, without
    the class token.
    """

    takes: ClassVar[Inputs] = "frames"
    dims: ClassVar[tuple[int, ...]] = (2, 3)

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.time = Heads(dim, heads)
        self.space = Heads(dim, heads)
        self.time_maps = nn.Softmax(dim=-1)
        self.space_maps = nn.Softmax(dim=-1)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with four heads, or the most below that divide the dimension."""
        return cls(channels, most_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """Time is an axis of the grid (T, *S), and each frame is a window."""
        heads = self.time.heads
        return (
            AttentionSite("time", "axial", "time_maps", grid=grid, heads=heads, axis=0),
            AttentionSite("space", "window", "space_maps", grid=grid, heads=heads, window=(1, *grid[1:])),
        )

    def attend(  # type: ignore[override]
        self, frames: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mix along time, then within frames, and give both maps."""
        places = frames.transpose(1, 2)
        along = None if mask is None else mask.transpose(1, 2)
        mixed, times = look(self.time, self.time_maps, places, lambda scores: unseen(scores, along))
        frames = frames + mixed.transpose(1, 2)
        mixed, spaces = look(self.space, self.space_maps, frames, lambda scores: unseen(scores, mask))
        return frames + mixed, times, spaces

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix along time, then within frames."""
        return self.attend(frames, mask)[0]


def unseen(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Let no query look at what is masked; a row with nothing real looks everywhere, and is masked itself.

    Shapes: scores [B, L, heads, n, n], mask bool [B, L, n] or None.
    """
    if mask is None:
        return scores
    real = mask | ~mask.any(-1, keepdim=True)
    return scores.masked_fill(~real[:, :, None, None, :], -torch.inf)
