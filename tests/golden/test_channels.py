"""Attention between channels or between lines of a map, against what the authors' code answers."""

import math

import pytest
import torch

from common.attention.cross_axis import CrossAxisAttention
from common.attention.self_attention import SelfAttention
from tests.golden.reference import close
from tests.golden.test_decoders import fill
from tests.golden.test_self_attention import count, golden

__all__ = ["golden"]


@pytest.mark.parametrize("golden", ["mcanet_cross_axis_attention"], indirect=True)
@torch.no_grad()
def test_cross_axis(golden):
    """Theirs has a factor per head that it never uses, 4 parameters without a gradient; ours is held at one.

    Their first strips lie along the columns of a row (1 x k), ours are numbered by axis.
    """
    weights, tensors, maps = golden
    heads, channels = len(weights["temperature"]), len(weights["norm1.body.weight"])
    names = sorted({key.split(".")[0] for key in weights if key.startswith("conv")})
    kernels = [weights[f"{name}.weight"].shape[-1] for name in names if name.endswith("_1")]
    layer = CrossAxisAttention(channels, 2, heads, kernels)
    values = {f"norm.{part}": weights[f"norm1.body.{part}"] for part in ("weight", "bias")}
    values |= {f"proj.{part}": weights[f"project_out.{part}"] for part in ("weight", "bias")}
    values["scale.scale"] = torch.ones(heads)
    for index in range(len(kernels)):
        for axis, number in ((0, 2), (1, 1)):
            for part in ("weight", "bias"):
                values[f"strips.{axis}.strips.{index}.{part}"] = weights[f"conv{index}_{number}.{part}"]
    fill(layer, values)
    assert count(layer) == sum(value.numel() for value in weights.values())
    mixed, *found = layer.attend(tensors["x"])
    close(mixed, tensors["y"])
    for got, expected in zip(found, maps, strict=True):
        close(got, expected)


@pytest.mark.parametrize("golden", ["transattunet_sdpa"], indirect=True)
@torch.no_grad()
def test_channels_as_tokens(golden):
    """The "transformer" of TransAttUnet: softmax(X X^T / sqrt(C)) X over channels, with no parameter at all.

    That is our self-attention with a channel for a token, one head, and identities for projections; as a token has N
    numbers and theirs divides by sqrt(C) all the same, our queries are sqrt(N / C) times as long.
    """
    weights, tensors, maps = golden
    assert not weights
    channels = tensors["x"].flatten(2)
    tokens, numbers = channels.shape[1:]
    same = torch.eye(numbers)
    layer = fill(
        SelfAttention(numbers, heads=1),
        {
            "qkv.weight": torch.cat([same * math.sqrt(numbers / tokens), same, same]),
            "qkv.bias": torch.zeros(3 * numbers),
            "proj.weight": same,
            "proj.bias": torch.zeros(numbers),
        },
    )
    mixed, found = layer.attend(channels)
    close(found[:, 0], maps[0])
    close(mixed.reshape(tensors["y"].shape), tensors["y"])
