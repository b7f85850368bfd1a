"""What stands between a feature map, or a grid of tokens, and an attention layer that wants something else."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionLayer, Grid


def flatten(features: Tensor) -> Tensor:
    """Turn positions into tokens, row by row. Shapes: [B, C, *S] -> [B, N, C]."""
    return features.flatten(2).transpose(1, 2)


def unflatten(tokens: Tensor, grid: Grid) -> Tensor:
    """Undo `flatten`; contiguous, since Opacus takes the strides of a convolution's input for those of a plain one.

    Shapes: [B, N, C] -> [B, C, *grid].
    """
    return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], *grid).contiguous()


def halve(features: Tensor) -> Tensor:
    """Average over blocks two wide; at the far edges over what there is. Shapes: [B, C, *S] -> [B, C, *ceil(S / 2)]."""
    pool = F.avg_pool2d if features.ndim == 4 else F.avg_pool3d
    return pool(features, 2, ceil_mode=True)


class ToGrid(nn.Module):
    """`unflatten` as a submodule, so that its output can be seen."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, tokens: Tensor) -> Tensor:
        """Unflatten."""
        return unflatten(tokens, self.grid)


class FeaturesOfTokens(nn.Module):
    """Feed tokens to a layer of features. Shapes: [B, N, D] -> [B, N, D]."""

    def __init__(self, layer: AttentionLayer, grid: Grid) -> None:
        super().__init__()
        self.layer, self.grid = layer, grid
        self.to_grid = ToGrid(grid)

    def forward(self, tokens: Tensor) -> Tensor:
        """Lay the tokens out, apply the layer, and line them up again."""
        return flatten(self.layer(self.to_grid(tokens)))


class PairOfTokens(nn.Module):
    """Feed tokens to a layer of pairs: the context is the same tokens at half the grid. Shapes: [B, N, D] -> same."""

    def __init__(self, layer: AttentionLayer, grid: Grid, inner: Grid) -> None:
        super().__init__()
        self.layer, self.grid, self.whole = layer, inner, grid

    def forward(self, tokens: Tensor) -> Tensor:
        """Let every token look at the coarser ones."""
        mixed: Tensor = self.layer(tokens, flatten(halve(unflatten(tokens, self.whole))))
        return mixed


class FramesOfTokens(nn.Module):
    """Feed the tokens of a volume to a layer of frames: a frame is a plane. Shapes: [B, D * N, C] -> same."""

    def __init__(self, layer: AttentionLayer, grid: Grid) -> None:
        super().__init__()
        self.layer, self.grid = layer, grid

    def forward(self, tokens: Tensor) -> Tensor:
        """Cut the volume into planes and put it together again."""
        frames = tokens.reshape(len(tokens), self.grid[0], math.prod(self.grid[1:]), -1)
        mixed: Tensor = self.layer(frames).flatten(1, 2)
        return mixed


class TokensOfFeatures(nn.Module):
    """Feed a feature map to a layer of tokens, behind a LayerNorm and beside a shortcut. Shapes: [B, C, *S] -> same.

    The shortcut, and the norm before the layer: as in a transformer (Dosovitskiy et al. 2021, eq. 2).
    """

    def __init__(self, layer: nn.Module, channels: int, grid: Grid) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.layer, self.grid = layer, grid

    def forward(self, features: Tensor) -> Tensor:
        """Add what the layer makes of the positions."""
        mixed = self.layer(self.norm(flatten(features)))
        return features + unflatten(mixed, tuple(features.shape[2:]))


class SelfGated(nn.Module):
    """Feed a feature map to a layer of skips: it is gated by itself at half the size. Shapes: [B, C, *S] -> same."""

    def __init__(self, layer: AttentionLayer, grid: Grid) -> None:
        super().__init__()
        self.layer, self.grid = layer, grid

    def forward(self, features: Tensor) -> Tensor:
        """Gate."""
        gated: Tensor = self.layer(features, halve(features))
        return gated


class BagOfPositions(nn.Module):
    """Sum up a feature map by a layer of bags, an instance per position. Shapes: [B, C, *S] -> [B, C]."""

    def __init__(self, layer: AttentionLayer, grid: Grid) -> None:
        super().__init__()
        self.layer, self.grid = layer, grid

    def forward(self, features: Tensor) -> Tensor:
        """Weigh the positions and sum them."""
        pooled: Tensor = self.layer(flatten(features))
        return pooled
