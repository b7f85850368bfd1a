"""Self-attention layers against what the authors' code answers, where those outputs lie beside the repository.

Names of weights on the left are ours, on the right theirs.
"""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from common.attention.axis import AxisAttention, Places
from common.attention.criss_cross import CrissCross, cross_scores, mix
from common.attention.neighbourhood import around
from common.attention.pooled_keys import PooledKeys
from common.attention.transposed import TransposedAttention
from common.attention.window import WindowAttention
from tests.golden.reference import FOLDER, BatchNorm, _filled, close


@pytest.fixture
def golden(request):
    """Give (weights by original name, inputs and outputs, maps in call order) of one reference."""
    folder = FOLDER / request.param
    if not (folder / "meta.json").is_file():
        pytest.skip(f"reference outputs of {request.param} are not beside the repository")
    maps = folder / "attn.safetensors"  # absent where theirs has no attention
    return *_filled(folder), list(load_file(maps).values()) if maps.is_file() else []


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


class SwinBlock:
    """What stands around the windows in the published model, from its weights."""

    def __init__(self, weights, name):
        self.weights, self.name = weights, name

    def linear(self, tokens, part):
        return F.linear(tokens, self.weights[f"{self.name}.{part}.weight"], self.weights[f"{self.name}.{part}.bias"])

    def norm(self, tokens, part):
        weight, bias = self.weights[f"{self.name}.{part}.weight"], self.weights[f"{self.name}.{part}.bias"]
        return F.layer_norm(tokens, weight.shape, weight, bias)

    def mlp(self, tokens):
        return self.linear(F.gelu(self.linear(self.norm(tokens, "norm2"), "mlp.fc1")), "mlp.fc2")


@pytest.mark.parametrize("golden", ["swin_unet_small"], indirect=True)
@torch.no_grad()
def test_window_and_shifted_window(golden):
    """The first two blocks: windows of 2 in place, then shifted by 1."""
    weights, tensors, maps = golden
    name = "patch_embed"
    tokens = F.conv2d(tensors["x"], weights[f"{name}.proj.weight"], weights[f"{name}.proj.bias"], stride=4)
    tokens = SwinBlock(weights, name).norm(tokens.movedim(1, -1), "norm")
    for index, shift in enumerate(((0, 0), (1, 1))):
        name = f"layers.0.blocks.{index}"
        block = SwinBlock(weights, name)
        layer = WindowAttention(24, (2, 2), heads=2, shift=shift)
        layer.load_state_dict(
            {
                "heads.qkv.weight": weights[f"{name}.attn.qkv.weight"],
                "heads.qkv.bias": weights[f"{name}.attn.qkv.bias"],
                "heads.proj.weight": weights[f"{name}.attn.proj.weight"],
                "heads.proj.bias": weights[f"{name}.attn.proj.bias"],
                "bias.table": weights[f"{name}.attn.relative_position_bias_table"],
            }
        )
        assert count(layer) == sum(
            value.numel() for key, value in weights.items() if key.startswith(f"{name}.attn.") and "index" not in key
        )
        mixed, found = layer.attend(block.norm(tokens, "norm1").movedim(-1, 1))
        close(found[0], maps[index])
        tokens = tokens + mixed.movedim(1, -1)
        tokens = tokens + block.mlp(tokens)


def norm_of(weights, name):
    """Give the batch normalisation of the published weights."""
    layer = BatchNorm(len(weights[f"{name}.weight"])).eval()
    parts = ("weight", "bias", "running_mean", "running_var")
    layer.load_state_dict({part: weights[f"{name}.{part}"] for part in parts}, strict=False)
    return layer


def axis_with(weights, places, axis=0, heads=4):
    """Our layer along an axis. Theirs numbers offsets from key to query, ours from query to key: tables turn."""
    layer = AxisAttention(
        weights["qkv_transform.weight"].shape[1], 2, axis, heads, places, norm=lambda channels: nn.Identity()
    )
    layer.norm, layer.balance, layer.norm_out = (
        norm_of(weights, f"bn_{part}") for part in ("qkv", "similarity", "output")
    )
    with torch.no_grad():
        layer.qkv.weight.copy_(weights["qkv_transform.weight"][..., None])
        if places is not None:
            tables = (
                weights["relative"]
                .flip(1)
                .split([len(places.query.table), len(places.key.table), len(places.value.table)])
            )
            for part, table in zip((places.query, places.key, places.value), tables, strict=True):
                part.table.copy_(table)
    return layer


@pytest.mark.parametrize("golden", ["axial_attention", "axial_attention_deeplab"], indirect=True)
@torch.no_grad()
def test_axial(golden):
    weights, tensors, maps = golden
    layer = axis_with(weights, Places(4, span=8))
    assert count(layer) == 784
    mixed, found = layer.attend(tensors["x"])
    close(mixed, tensors["y"])
    close(found.flatten(0, 1), maps[0])


@pytest.mark.parametrize("golden", ["axial_attention_wopos"], indirect=True)
@torch.no_grad()
def test_axial_without_places(golden):
    weights, tensors, maps = golden
    layer = axis_with(weights, None)
    assert count(layer) == 616
    mixed, found = layer.attend(tensors["x"])
    close(mixed, tensors["y"])
    close(found.flatten(0, 1), maps[0])


def gated_axis_with(weights, axis, heads):
    """The same with gates; the number of offsets and channels is that of the weights."""
    rows, offsets = weights["relative"].shape
    places = Places(rows // 2, (offsets + 1) // 2, gated=True)
    layer = axis_with(weights, places, axis, heads)
    names = ((places.query_gate, "qr"), (places.key_gate, "kr"), (places.value_gate, "sv"), (places.place_gate, "sve"))
    with torch.no_grad():
        for gate, name in names:
            gate.gate.fill_(weights[f"f_{name}"].item())
    return layer


def inside(weights, name):
    """Give the weights of a part, by their names in that part."""
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


@pytest.mark.parametrize("golden", ["axial_attention_gated"], indirect=True)
@torch.no_grad()
def test_gated_axial(golden):
    weights, tensors, maps = golden
    layer = gated_axis_with(weights, axis=0, heads=4)
    assert count(layer) == 788
    mixed, found = layer.attend(tensors["x"])
    close(mixed, tensors["y"])
    close(found.flatten(0, 1), maps[0])


@pytest.mark.parametrize("golden", ["gated_axial_unet"], indirect=True)
@torch.no_grad()
def test_gated_axial_inside_a_model(golden):
    """The first block: three convolutions, one that narrows, then the rows and the columns."""
    weights, tensors, maps = golden
    features = tensors["x"]
    for conv, norm, stride in (("conv1", "bn1", 2), ("conv2", "bn2", 1), ("conv3", "bn3", 1)):
        kernel = weights[f"{conv}.weight"]
        features = F.conv2d(features, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        features = F.relu(norm_of(weights, norm)(features))
    block = inside(weights, "layer1.0")
    features = F.relu(norm_of(block, "bn1")(F.conv2d(features, block["conv_down.weight"])))
    for index, name in enumerate(("hight_block", "width_block")):
        features, found = gated_axis_with(inside(block, name), index, heads=8).attend(features)
        close(found.flatten(0, 1), maps[index])


@pytest.mark.parametrize("golden", ["crisscross_attention"], indirect=True)
@torch.no_grad()
def test_criss_cross(golden):
    """Theirs takes softmax over the rows of queries, and counts the own place twice; the rest is as published.

    So our scores give their map once the own place is put back and their axis is taken, and our sum gives their answer.
    """
    weights, tensors, maps = golden
    layer = CrissCross(16)
    names = [f"{name}_conv" for name in ("query", "key", "value")]
    layer.load_state_dict(
        {
            "qkv.weight": torch.cat([weights[f"{name}.weight"] for name in names]),
            "qkv.bias": torch.cat([weights[f"{name}.bias"] for name in names]),
            "scale.gate": weights["gamma"],
        }
    )
    assert count(layer) == 341
    query, key, value = layer._split(tensors["x"], None)
    scores = cross_scores(query, key)
    own = (query * key).sum(1)[..., None]
    found = F.softmax(torch.where(scores.isinf(), own, scores), 1)
    close(found, maps[0])
    close(tensors["x"] + layer.scale(mix(found, value)), tensors["y"])


@pytest.mark.parametrize("golden", ["medvit_emhsa"], indirect=True)
@torch.no_grad()
def test_pooled_keys(golden):
    weights, tensors, maps = golden
    layer = PooledKeys(64, heads=2, run=4, norm=lambda channels: norm_of(weights, "norm"))
    layer.load_state_dict(
        {
            "query.weight": weights["q.weight"],
            "query.bias": weights["q.bias"],
            "key_value.weight": torch.cat([weights["k.weight"], weights["v.weight"]]),
            "key_value.bias": torch.cat([weights["k.bias"], weights["v.bias"]]),
            "proj.weight": weights["proj.weight"],
            "proj.bias": weights["proj.bias"],
        },
        strict=False,  # the normalisation has its own already
    )
    assert count(layer) == 16768
    mixed, found = layer.attend(tensors["x"])
    close(mixed, tensors["y"])
    close(found, maps[0])


@pytest.mark.parametrize("golden", ["cddfuse_base_attention"], indirect=True)
@torch.no_grad()
def test_transposed(golden):
    weights, tensors, maps = golden
    layer = TransposedAttention(16, heads=4)
    layer.load_state_dict(
        {
            "scale.scale": weights["scale"].flatten(),
            "qkv.weight": weights["qkv1.weight"],
            "near.weight": weights["qkv2.weight"],
            "proj.weight": weights["proj.weight"],
        }
    )
    assert count(layer) == 21764
    mixed, found = layer.attend(tensors["x"])
    close(mixed, tensors["y"])
    close(found, maps[0])


@pytest.mark.parametrize("golden", ["sasa_attentionconv"], indirect=True)
@torch.no_grad()
def test_gathering_of_neighbourhoods(golden):
    """What is shared with the port: which places lie around which, in which order, and the sums.

    The port is another layer than its paper: softmax channel by channel, which is a head per channel, and over the
    zeros outside the image too, whose keys are the relative positions alone. Ours gives these the weight zero.
    """
    weights, tensors, maps = golden
    grid = tensors["x"].shape[2:]
    query, key, value = (
        F.conv2d(tensors["x"], weights[f"{name}_conv.weight"]).flatten(2)[..., None]
        for name in ("query", "key", "value")
    )
    rows = weights["rel_h"].expand(-1, 1, 1, 3, 3).flatten(1)
    columns = weights["rel_w"].expand(-1, 1, 1, 3, 3).flatten(1)
    keys = around(key, grid, (3, 3)).squeeze(-1) + torch.cat([rows, columns])[None, :, None]
    found = (query * keys).softmax(-1)
    close(found.reshape(2, 4, 4, 8, 8, 9), maps[0])
    close((found * around(value, grid, (3, 3)).squeeze(-1)).sum(-1).reshape(tensors["y"].shape), tensors["y"])
