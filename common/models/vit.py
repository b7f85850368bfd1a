"""A small vision transformer with a class token."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionModel, AttentionSite
from common.attention.self_attention import SelfAttention
from common.config import ModelSection

DEPTH = 4
HEADS = 4


class ClassToken(nn.Module):
    """Put one learnt token before the others. A leaf module, so that per-sample gradients by hooks stay right.

    Shapes: [B, N, D] -> [B, N + 1, D].
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Prepend the token to every image's row."""
        return torch.cat([self.token.expand(tokens.shape[0], 1, -1), tokens], 1)


class Positions(nn.Module):
    """Add a learnt vector per position. A leaf module, as the class token.

    Shapes: [B, N, D] -> [B, N, D].
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(count, dim) * 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Add the table to every image's tokens."""
        return tokens + self.table


class Block(nn.Module):
    """Self-attention and a two-layer network, each behind a LayerNorm and beside a shortcut.

    Shapes: [B, N, D] -> [B, N, D]. Source: Dosovitskiy et al. 2021, eq. 2-3.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads)
        self.before_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix the tokens, then each by itself."""
        tokens = tokens + self.attention(self.before_attention(tokens))
        mixed: Tensor = tokens + self.mlp(self.before_mlp(tokens))
        return mixed


class VisionTransformer(AttentionModel):
    """Pre-norm vision transformer that answers from its class token.

    Images whose side is not a multiple of the patch are resized to the next multiple, so the token grid always covers
    the whole image evenly.

    Shapes: images [B, C, S, S] -> logits [B, outputs]; features [B, D].
    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", eq. 1-4.
    """

    def __init__(self, channels: int, outputs: int, dim: int, grid: int, patch: int) -> None:
        super().__init__()
        self.side = grid * patch
        self.embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.class_token = ClassToken(dim)
        self.positions = Positions(grid * grid + 1, dim)
        self.blocks = nn.Sequential(*(Block(dim, HEADS) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs)
        self.attention_sites = tuple(
            AttentionSite(f"block{i + 1}", "self-attention", f"blocks.{i}.attention.maps", (grid, grid), True, HEADS)
            for i in range(DEPTH)
        )

    def features(self, images: Tensor) -> Tensor:
        """Give the class token after the last block, normalised."""
        if images.shape[2:] != (self.side, self.side):
            images = F.interpolate(images, size=(self.side, self.side), mode="bilinear", align_corners=False)
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        tokens = self.blocks(self.positions(self.class_token(tokens)))
        summary: Tensor = self.norm(tokens[:, 0])
        return summary

    def forward(self, images: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.head(self.features(images))
        return logits


def vit_tiny(settings: ModelSection, channels: int, outputs: int, image_size: int) -> VisionTransformer:
    """Build a transformer of four blocks with four heads, 4 `width` numbers per token.

    Patches are 4 pixels wide below 64 pixels and 8 from there on.
    """
    patch = 4 if image_size < 64 else 8
    return VisionTransformer(channels, outputs, 4 * settings.width, math.ceil(image_size / patch), patch)
