"""Windows of volumes inside MONAI's Swin UNETR, against what it answers: the encoder from image to last stage."""

import math

import pytest
import torch
from torch.nn import functional as F

from common.attention.relative_position import RelativeBias
from common.attention.window import WindowAttention
from tests.golden.reference import close
from tests.golden.test_decoders import fill, linear, norm
from tests.golden.test_self_attention import count, golden

__all__ = ["golden"]

SIDE = 7
MERGED = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))
"""The eight neighbours that are joined into one token, in MONAI's order."""
PARTS = [f"{layer}.{part}" for layer in ("qkv", "proj") for part in ("weight", "bias")]


def attention(weights, name, grid, shifted):
    """Ours on a grid that windows divide, of 7 or what the grid holds.

    Where the window is smaller, theirs still has the table of 7 and takes from it, for the first 64 places in a window
    of 4 x 4 x 4, the offsets of the first 64 places in a window of 7 x 7 x 7. So does the bias of ours here.
    """
    window = tuple(min(SIDE, side) for side in grid)
    heads, places = weights[f"{name}.relative_position_bias_table"].shape[1], math.prod(window)
    layer = WindowAttention(weights[f"{name}.proj.bias"].numel(), window, heads, (SIDE // 2 * shifted,) * 3)
    layer.bias = RelativeBias((SIDE,) * 3, heads)
    layer.bias.index = layer.bias.index[:places, :places]
    parts = {f"heads.{part}": weights[f"{name}.{part}"] for part in PARTS}
    return fill(layer, {**parts, "bias.table": weights[f"{name}.relative_position_bias_table"]})


def block(tokens, weights, name, shifted):
    """Pad, attend, cut, and the network behind. Padding is real to theirs, so it is there before ours is called."""
    grid = tuple(tokens.shape[1:4])
    short = [-side % min(SIDE, side) for side in grid]
    padded = F.pad(norm(tokens, weights, f"{name}.norm1"), (0, 0, 0, short[2], 0, short[1], 0, short[0]))
    layer = attention(weights, f"{name}.attn", tuple(padded.shape[1:4]), shifted)
    mixed, maps = layer.attend(padded.movedim(-1, 1))
    tokens = tokens + mixed.movedim(1, -1)[:, : grid[0], : grid[1], : grid[2]]
    inner = F.gelu(linear(norm(tokens, weights, f"{name}.norm2"), weights, f"{name}.mlp.linear1"))
    return tokens + linear(inner, weights, f"{name}.mlp.linear2"), maps, count(layer)


@pytest.mark.parametrize("golden", ["swin_unetr_monai_small"], indirect=True)
@torch.no_grad()
def test_windows_of_volumes(golden):
    """Four stages of two blocks, in place and shifted; the maps at hand are those of the last stage."""
    weights, tensors, maps = golden
    weights = {key.removeprefix("swinViT."): value for key, value in weights.items() if key.startswith("swinViT.")}
    embedding = "patch_embed.proj"
    tokens = F.conv3d(tensors["x"], weights[f"{embedding}.weight"], weights[f"{embedding}.bias"], stride=2)
    tokens, found, ours = tokens.movedim(1, -1), [], 0
    for stage in range(1, 5):
        for index in (0, 1):
            tokens, seen, own = block(tokens, weights, f"layers{stage}.0.blocks.{index}", index == 1)
            found.append(seen[0])
            ours += own
        if stage < 4:
            joined = torch.cat([tokens[:, i::2, j::2, k::2] for i, j, k in MERGED], -1)
            name = f"layers{stage}.0.downsample"
            tokens = F.linear(norm(joined, weights, f"{name}.norm"), weights[f"{name}.reduction.weight"])
    for got, expected in zip(found[-2:], maps, strict=True):
        close(got, expected)
    assert [len(seen) for seen in found] == [125, 125, 27, 27, 8, 8, 1, 1]
    assert ours == sum(value.numel() for key, value in weights.items() if ".attn." in key and "index" not in key)
