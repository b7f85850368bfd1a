"""Gates and branches against what the authors' code answers, where those outputs lie beside the repository.

A row of the table says how our layer is built and which submodule of theirs (right) holds the parameters of which of
ours (left). Sizes come from the reference, so that others of the same class need no row of their own.
"""

import pytest
from torch import nn

from common.attention.attention_gate import AttentionGate
from common.attention.cbam import Cbam
from common.attention.cse import ChannelExcitation
from common.attention.eca import EfficientChannelAttention
from common.attention.scse import ConcurrentExcitation
from common.attention.spatial import CONVOLUTIONS, resize
from common.attention.squeeze_excitation import SqueezeExcitation
from common.attention.sse import SpatialExcitation
from tests.golden.reference import BatchNorm, Reference, attended, check


def squeeze_excitation(sizes):
    hidden, channels = sizes.shapes["fc.0.weight"]
    return SqueezeExcitation(channels, channels // hidden, bias="fc.0.bias" in sizes.shapes, least=1)


def channel_excitation(sizes):
    hidden, channels = sizes.shapes["fc1.weight"]
    return ChannelExcitation(channels, channels // hidden)


def concurrent_excitation(sizes):
    hidden, channels = sizes.shapes["cSE.fc1.weight"]
    return ConcurrentExcitation(channels, channels // hidden, sizes.dims, combine="max")


def cbam(sizes):
    hidden, channels = sizes.shapes["ChannelGate.mlp.1.weight"]
    kernel = sizes.shapes["SpatialGate.spatial.conv.weight"][-1]
    return Cbam(channels, channels // hidden, kernel, sizes.dims, BatchNorm, least=1)


def attention_gate(sizes):
    """Theirs has no norm inside, and one behind a last convolution."""
    inner, gating = sizes.shapes["phi.weight"][:2]
    channels = sizes.shapes["theta.weight"][1]
    return AttentionGate(channels, gating, inner, sizes.dims, lambda _: nn.Identity(), BatchNorm)


def attention_gate_and_enlarged_map(layer, features, gating):
    gated, gates = layer.attend(features, gating)
    return (gated, resize(gates, features)), (gates,)


def attention_gate_at_full_size(sizes):
    """Theirs works on the features' own grid and normalises each of the three convolutions."""
    inner, gating = sizes.shapes["W_g.0.weight"][:2]
    channels = sizes.shapes["W_x.0.weight"][1]
    conv = CONVOLUTIONS[sizes.dims]
    layer = AttentionGate(channels, gating, inner, sizes.dims, lambda _: nn.Identity())
    layer.theta = nn.Sequential(conv(channels, inner, 1), BatchNorm(inner))
    layer.phi = nn.Sequential(conv(gating, inner, 1), BatchNorm(inner))
    layer.gate = nn.Sequential(nn.ReLU(), nn.Sequential(conv(inner, 1, 1), BatchNorm(1)), nn.Sigmoid())
    return layer


GATE_2018 = Reference(
    attention_gate,
    {"theta": "theta", "phi": "phi", "gate.1": "psi", "project": "W"},
    ("x", "g"),
    attention_gate_and_enlarged_map,
)
ECA = Reference(
    lambda sizes: EfficientChannelAttention(next(iter(sizes.inputs.values()))[1], sizes.shapes["conv.weight"][-1]),
    {"gate.1": "conv"},
)
SCSE = Reference(
    concurrent_excitation, {"channel.gate.0": "cSE.fc1", "channel.gate.2": "cSE.fc2", "spatial.gate.0": "sSE.conv"}
)
TABLE = {
    "se_layer": Reference(squeeze_excitation, {"gate": "fc"}),
    "cse": Reference(channel_excitation, {"gate.0": "fc1", "gate.2": "fc2"}),
    "sse": Reference(lambda sizes: SpatialExcitation(sizes.shapes["conv.weight"][1], sizes.dims), {"gate.0": "conv"}),
    "scse": SCSE,
    "scse3d": SCSE,
    "eca_layer": ECA,
    "eca_layer_k5": ECA,
    "cbam": Reference(
        cbam,
        {
            "channel.mlp.0": "ChannelGate.mlp.1",
            "channel.mlp.2": "ChannelGate.mlp.3",
            "spatial.conv": "SpatialGate.spatial.conv",
            "spatial.norm": "SpatialGate.spatial.bn",
        },
        # Theirs has the maximum first, the paper the mean.
        change={"spatial.conv.weight": lambda weight: weight.flip(1)},
    ),
    "attention_gate_2d": GATE_2018,
    "attention_gate_3d": GATE_2018,
    "attention_gate_leejunhyun": Reference(
        attention_gate_at_full_size, {"theta": "W_x", "phi": "W_g", "gate.1": "psi"}, ("x", "g"), attended
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_agrees_with_the_reference(name):
    check(name, TABLE[name])
