"""Self-attention between channels: what goes together, not what lies where."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, AttentionSite, Grid
from common.attention.self_attention import most_heads
from common.attention.spatial import CONVOLUTIONS, blank
from common.errors import ConfigError


class HeadScale(nn.Module):
    """Multiply each head's scores, or queries, by a learnt number. Shapes: [B, heads, *, *] -> the same."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(heads))

    def forward(self, scores: Tensor) -> Tensor:
        """Multiply."""
        return scores * self.scale[:, None, None]


class TransposedAttention(AttentionLayer):
    """Every channel looks at the channels of its head; the score is the cosine of two channels over all places.

    The cost grows with the number of places, not with its square. Queries, keys and values come from a 1-convolution
    and a 3-convolution.

    Shapes: features [B, C, *S] -> mixed [B, C, *S], maps [B, heads, C / heads, C / heads] with rows that sum to one.
    Source: Zamir et al. 2022, "Restormer", eq. 1, with whole in the place of depthwise convolutions as in Zhao et al.
    2023, "CDDFuse", the base feature extraction.
    """

    def __init__(self, channels: int, dims: int = 2, heads: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ConfigError(f"{heads} heads do not divide {channels} channels. Take a multiple of {heads}.")
        convolution = CONVOLUTIONS[dims]
        self.heads = heads
        self.qkv = convolution(channels, 3 * channels, 1, bias=False)
        self.near = convolution(3 * channels, 3 * channels, 3, padding=1, bias=False)
        self.scale = HeadScale(heads)
        self.maps = nn.Softmax(dim=-1)
        self.proj = convolution(channels, channels, 1, bias=False)

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with four heads, or the most below that divide the channels."""
        return cls(channels, len(grid), most_heads(channels))

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """One map between channels: neither its rows nor its columns have places."""
        return (AttentionSite("", "cross-attention", "maps", heads=self.heads),)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Mix channels and give the map."""
        parts = blank(self.near(self.qkv(blank(features, mask))), mask)  # the second time: it reached over the edge
        query, key, value = parts.reshape(len(parts), 3, self.heads, -1, parts[0, 0].numel()).unbind(1)
        scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
        maps: Tensor = self.maps(self.scale(scores))
        return self.proj((maps @ value).reshape(features.shape)), maps

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix channels."""
        return self.attend(features, mask)[0]
