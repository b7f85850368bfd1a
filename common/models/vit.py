"""A small vision transformer, with any attention layer that takes tokens or features."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention import ATTENTION
from common.attention.base import AttentionModel, AttentionSite, Grid
from common.config import ModelSection
from common.models.placement import NONE, choose, sites_of, token_block

DEPTH = 4


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
    """Attention and a two-layer network, each behind a LayerNorm and beside a shortcut; `none` has the network alone.

    Shapes: [B, N, D] -> [B, N, D]. Source: Dosovitskiy et al. 2021, eq. 2-3.
    """

    def __init__(self, dim: int, attention: str, grid: Grid) -> None:
        super().__init__()
        self.attends = attention != NONE
        if self.attends:
            self.before_attention = nn.LayerNorm(dim)
            self.attention = token_block(attention, dim, grid)
        self.before_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix the tokens, then each by itself."""
        if self.attends:
            tokens = tokens + self.attention(self.before_attention(tokens))
        mixed: Tensor = tokens + self.mlp(self.before_mlp(tokens))
        return mixed


class VisionTransformer(AttentionModel):
    """Pre-norm vision transformer that answers from its class token, or from the mean of its tokens.

    A class token stands where `has_class_token`. Images whose side is not a multiple of the patch are
    resized to the next multiple, so the token grid always covers the whole image evenly.

    Shapes: images [B, C, S, S] -> logits [B, outputs]; features [B, D].
    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", eq. 1-4.
    """

    def __init__(self, channels: int, outputs: int, dim: int, grid: Grid, patch: int, attention: str) -> None:
        super().__init__()
        self.sides = tuple(side * patch for side in grid)
        cls = has_class_token(attention)
        self.embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.class_token = ClassToken(dim) if cls else None
        self.positions = Positions(math.prod(grid) + cls, dim)
        self.blocks = nn.Sequential(*(Block(dim, attention, grid) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs)
        self.attention_sites = tuple(
            site for i in range(DEPTH) if attention != NONE for site in self._block_sites(i, grid, cls)
        )

    def _block_sites(self, index: int, grid: Grid, cls: bool) -> tuple[AttentionSite, ...]:
        path = f"blocks.{index}.attention"
        return sites_of(self.get_submodule(path), path, f"block{index + 1}", grid, cls=cls)

    def features(self, images: Tensor) -> Tensor:
        """Give the class token after the last block, normalised; without one, the mean of the normalised tokens."""
        images = self.before(images)
        if images.shape[2:] != self.sides:
            images = F.interpolate(images, size=self.sides, mode="bilinear", align_corners=False)
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        if self.class_token is None:
            mean: Tensor = self.norm(self.blocks(self.positions(tokens))).mean(1)
            return mean
        tokens = self.blocks(self.positions(self.class_token(tokens)))
        summary: Tensor = self.norm(tokens[:, 0])
        return summary

    def forward(self, images: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.head(self.features(images))
        return logits


def has_class_token(attention: str) -> bool:
    """Say whether a class token can stand in front of the tokens and answer for them.

    The layer must allow one, and every parameter of it must reach the class token's row, as a probe shows: a table of
    offsets between places does not, and would be dead in the last block. Without attention the token would see nothing.
    """
    if attention == NONE or ATTENTION.load(attention).takes != "tokens" or not ATTENTION.load(attention).class_token:
        return False
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        layer = token_block(attention, 16, (4, 4))
        for parameter in layer.parameters():  # what starts at zero may hide the others
            nn.init.normal_(parameter)
        answer = layer(torch.randn(1, 17, 16))[:, 0]
        reached = torch.autograd.grad(answer.square().sum(), list(layer.parameters()), allow_unused=True)
    return all(found is not None and bool(found.any()) for found in reached)


def vit(settings: ModelSection, channels: int, outputs: int, image_size: int) -> VisionTransformer:
    """Build a transformer of four blocks, 4 `width` numbers per token, by itself with self-attention of four heads.

    Patches are 4 pixels wide below 64 pixels and 8 from there on.
    """
    patch = 4 if image_size < 64 else 8
    grid = (math.ceil(image_size / patch),) * 2
    attention = choose(settings, "self-attention", "tokens")
    return VisionTransformer(channels, outputs, 4 * settings.width, grid, patch, attention)
