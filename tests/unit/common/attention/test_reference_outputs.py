"""Our layers against what the authors' code answers, where those reference outputs lie beside the repository."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from common.attention.attention_gate import AttentionGate
from common.attention.cbam import Cbam
from common.attention.spatial import resize
from common.attention.squeeze_excitation import SqueezeExcitation

GOLDEN = Path(__file__).parents[5] / "shared" / "golden"
EPSILON = 1e-5  # of the authors' batch normalisation


@pytest.fixture
def golden(request):
    """Give (weights by original name, inputs and outputs, maps) of one reference."""
    folder = GOLDEN / request.param
    if not (folder / "meta.json").is_file():
        pytest.skip(f"reference outputs of {request.param} are not beside the repository")
    spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    return fill.weights(folder), fill.tensors(folder), list(load_file(folder / "attn.safetensors").values())


def close(got, expected):
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def load(module, weight, bias=None):
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)


def scale_and_shift(weights, name):
    """The affine map that batch normalisation is at evaluation."""
    scale = weights[f"{name}.weight"] / (weights[f"{name}.running_var"] + EPSILON).sqrt()
    return scale, weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * scale


@pytest.mark.parametrize("golden", ["cse"], indirect=True)
def test_squeeze_and_excitation(golden):
    weights, tensors, maps = golden
    layer = SqueezeExcitation(32, reduction=2)
    for place, name in ((0, "fc1"), (2, "fc2")):
        load(layer.gate[place], weights[f"{name}.weight"], weights[f"{name}.bias"])
    gated, gates = layer.attend(tensors["x"])
    close(gated, tensors["y"])
    close(gates, maps[0])


@pytest.mark.parametrize("golden", ["cbam"], indirect=True)
def test_cbam(golden):
    weights, tensors, maps = golden
    layer = Cbam(32)
    layer.channel.mlp = nn.Sequential(nn.Linear(32, 2), nn.ReLU(), nn.Linear(2, 32))
    for place, name in ((0, "ChannelGate.mlp.1"), (2, "ChannelGate.mlp.3")):
        load(layer.channel.mlp[place], weights[f"{name}.weight"], weights[f"{name}.bias"])
    scale, shift = scale_and_shift(weights, "SpatialGate.spatial.bn")
    filters = weights["SpatialGate.spatial.conv.weight"].flip(1)  # theirs has the maximum first, the paper the mean
    load(layer.spatial.conv, filters * scale, shift)
    gated, channel, spatial = layer.attend(tensors["x"])
    close(gated, tensors["y"])
    close(channel, maps[0])
    close(spatial, maps[1])


@pytest.mark.parametrize("golden", ["attention_gate_2d"], indirect=True)
def test_attention_gate(golden):
    weights, tensors, maps = golden
    layer = AttentionGate(8, gating=16, inner=8)
    layer.norm = nn.Identity()  # theirs normalises after the gate, in a convolution that ours leaves to the decoder
    load(layer.theta, weights["theta.weight"])
    load(layer.phi, weights["phi.weight"], weights["phi.bias"])
    load(layer.gate[1], weights["psi.weight"], weights["psi.bias"])
    gated, gates = layer.attend(tensors["x"], tensors["g"])
    close(gates, maps[0])
    close(resize(gates, tensors["x"]), tensors["y1"])
    scale, shift = scale_and_shift(weights, "W.1")
    after = F.conv2d(gated, weights["W.0.weight"], weights["W.0.bias"])
    close(after * scale[:, None, None] + shift[:, None, None], tensors["y0"])
