"""Decoders and poolers that use self- and cross-attention, against what the authors' code answers.

What is ours are the attention layers; norms, feed-forward networks and positions around them are rebuilt here from the
papers, on the original weights.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.attention.cross_attention import CrossAttention
from common.attention.self_attention import SelfAttention
from tests.golden.reference import close
from tests.golden.test_self_attention import count, golden

__all__ = ["golden"]


def norm(tokens, weights, name):
    return F.layer_norm(tokens, tokens.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def linear(tokens, weights, name):
    return F.linear(tokens, weights[f"{name}.weight"], weights[f"{name}.bias"])


def fill(layer: nn.Module, values):
    """Give every parameter its value; a name that is missing or too many is an error."""
    layer.load_state_dict(values)
    return layer.eval()


@pytest.mark.parametrize("golden", ["medklip_tqn_decoder"], indirect=True)
@torch.no_grad()
def test_query_decoder(golden):
    """Wu et al. 2023, MedKLIP: queries look at each other, then at the image; norms stand before.

    Theirs has a bias on the keys, which a softmax undoes: 64 parameters that ours has not. Ours has a gate, held open.
    """
    weights, tensors, maps = golden
    queries, memory = tensors["tgt"].transpose(0, 1), tensors["memory"].transpose(0, 1)
    found, ours = [], 0
    for layer in ("layers.0", "layers.1"):
        own = fill(
            SelfAttention(32, 4),
            {
                "qkv.weight": weights[f"{layer}.self_attn.in_proj_weight"],
                "qkv.bias": weights[f"{layer}.self_attn.in_proj_bias"],
                "proj.weight": weights[f"{layer}.self_attn.out_proj.weight"],
                "proj.bias": weights[f"{layer}.self_attn.out_proj.bias"],
            },
        )
        query, key, value = weights[f"{layer}.multihead_attn.in_proj_weight"].chunk(3)
        query_bias, _, value_bias = weights[f"{layer}.multihead_attn.in_proj_bias"].chunk(3)
        cross = fill(
            CrossAttention(32, 32, 4),
            {
                "query.weight": query,
                "query.bias": query_bias,
                "key.weight": key,
                "value.weight": value,
                "value.bias": value_bias,
                "proj.weight": weights[f"{layer}.multihead_attn.out_proj.weight"],
                "proj.bias": weights[f"{layer}.multihead_attn.out_proj.bias"],
                "gate.0.weight": torch.zeros(32, 32),
                "gate.0.bias": torch.full((32,), 40.0),
            },
        )
        ours += count(own) + count(cross) - count(cross.gate) + 32
        mixed, map_ = own.attend(norm(queries, weights, f"{layer}.norm1"))
        queries = queries + mixed
        found.append(map_)
        before = norm(queries, weights, f"{layer}.norm2")
        after, map_ = cross.attend(before, memory)
        queries = queries + after - before  # ours adds what it took to its input, theirs to what came before the norm
        found.append(map_)
        inner = linear(norm(queries, weights, f"{layer}.norm3"), weights, f"{layer}.linear1").relu()
        queries = queries + linear(inner, weights, f"{layer}.linear2")
    close(norm(queries, weights, "norm").transpose(0, 1), tensors["y0"])
    for got, expected in zip(found, maps, strict=True):
        close(got.reshape(expected.shape), expected)
    close(found[1].mean(1), tensors["y10"])
    close(found[3].mean(1), tensors["y11"])
    around = sum(value.numel() for key, value in weights.items() if "attn" not in key)
    assert ours + around == 25728


@pytest.mark.parametrize("golden", ["biovilt_pooler"], indirect=True)
@torch.no_grad()
def test_temporal_pooler(golden):
    """Bannur et al. 2023, BioViL-T: the patches of now and before look at each other; those of now are kept.

    A sine position and a learnt type of image are added behind the first norm of every block.
    """
    weights, tensors, maps = golden
    now, before = (tensors[name].flatten(2).transpose(1, 2) for name in ("cur", "prev"))
    tokens = torch.cat([now, before], 1)
    place = sine(4, 4, 32).repeat(2, 1) + weights["type_embed"].expand(-1, 16, -1).reshape(32, 32)
    ours = 0
    for index, name in enumerate(("blocks.0", "blocks.1")):
        theirs = [weights[f"{name}.attn.proj_{part}.weight"] for part in "qkv"]
        layer = fill(
            SelfAttention(32, 4),
            {
                "qkv.weight": torch.cat(theirs),
                "qkv.bias": torch.zeros(96),
                "proj.weight": weights[f"{name}.attn.proj.weight"],
                "proj.bias": weights[f"{name}.attn.proj.bias"],
            },
        )
        ours += count(layer) - 96  # theirs has no bias there
        mixed, found = layer.attend(norm6(tokens, weights, f"{name}.norm1") + place)
        tokens = tokens + mixed
        inner = F.gelu(linear(norm6(tokens, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1"))
        tokens = tokens + linear(inner, weights, f"{name}.mlp.fc2")
        close(found, maps[index])
    kept = norm6(tokens, weights, "norm_post")[:, :16]
    close(kept.transpose(1, 2).reshape(tensors["y"].shape), tensors["y"])
    around = sum(value.numel() for key, value in weights.items() if ".attn." not in key)
    assert ours + around == 12864


def norm6(tokens, weights, name):
    return F.layer_norm(tokens, tokens.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


def sine(rows, columns, dim):
    """Sine positions of two axes, each scaled to 2π (Carion et al. 2020, DETR): half of the numbers for each axis."""
    half = dim // 2
    rates = 10000 ** (2 * (torch.arange(half) // 2) / half)

    def wave(place, count):
        angle = (place + 1) / (count + 1e-6) * 2 * math.pi / rates
        return torch.stack([angle[0::2].sin(), angle[1::2].cos()], 1).flatten()

    return torch.stack([torch.cat([wave(y, rows), wave(x, columns)]) for y in range(rows) for x in range(columns)])
