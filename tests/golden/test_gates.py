"""Gates and branches against what the authors' code answers, where those outputs lie beside the repository.

A row of the table says how our layer is built and which submodule of theirs (right) holds the parameters of which of
ours (left). Sizes come from the reference, so that others of the same class need no row of their own.
"""

import pytest
import torch
from torch import nn

from common.attention.attention_gate import AttentionGate
from common.attention.axial_reverse import AxialKernel
from common.attention.cbam import Cbam
from common.attention.cse import ChannelExcitation
from common.attention.eca import EfficientChannelAttention
from common.attention.non_local import NonLocal
from common.attention.residual_attention import ResidualAttention
from common.attention.scse import ConcurrentExcitation
from common.attention.selective_kernel import Branches, SelectiveKernel
from common.attention.spatial import CONVOLUTIONS, resize
from common.attention.squeeze_excitation import SqueezeExcitation
from common.attention.sse import SpatialExcitation
from tests.golden.published_resnet import BRANCH_ROWS, Block, BranchNetwork, Network
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


def non_local(sizes):
    inner, channels = sizes.shapes["theta.weight"][:2]
    return NonLocal(channels, inner, sizes.dims, "phi.0.weight" in sizes.shapes, BatchNorm, key_bias=True)


def selective_kernel(sizes):
    """Theirs splits the channels among the branches unless told not to."""
    split = "split_input=False" not in sizes.call
    channels = sizes.inputs["x"][1]
    count = sum(key.endswith(".conv.weight") for key in sizes.shapes)
    groups = channels // (count if split else 1) // sizes.shapes["paths.0.conv.weight"][1]
    branches = Branches(count, groups, sizes.shapes["attn.fc_reduce.weight"][0], split)
    return SelectiveKernel(channels, branches, sizes.dims, BatchNorm)


def selective_kernel_of_growing_size(sizes):
    """Theirs has kernels of 3 and 5 instead of dilation, biases, and neither norm nor ReLU in the reduction."""
    hidden, channels = sizes.shapes["fc.weight"]
    count = sum(key.startswith("fcs.") and key.endswith("weight") for key in sizes.shapes)
    layer = SelectiveKernel(channels, Branches(count, hidden=hidden), sizes.dims, BatchNorm)
    for step, branch in enumerate(layer.branches):
        _, given, size, _ = sizes.shapes[f"convs.{step}.0.weight"]
        branch[0] = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels // given)
    layer.reduce = nn.Linear(channels, hidden)
    layer.select = Selections(hidden, channels, count)
    return layer


class Selections(nn.Module):
    """One linear layer per branch, side by side."""

    def __init__(self, hidden, channels, count):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(hidden, channels) for _ in range(count))

    def forward(self, hidden):
        return torch.cat([part(hidden) for part in self.parts], 1)


def position_attention(sizes):
    """Theirs has values as wide as the features and one learnt factor instead of the last convolution."""
    inner, channels = sizes.shapes["query_conv.weight"][:2]
    layer = NonLocal(channels, inner, sizes.dims, key_bias=True)
    layer.g = CONVOLUTIONS[sizes.dims](channels, channels, 1)
    layer.out = Factor()
    return layer


class Factor(nn.Module):
    """One learnt factor."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features):
        return self.gamma * features


def axial_kernel(sizes):
    """Theirs cuts along the last axis both times."""
    return AxialKernel(sizes.inputs["x"][1], sizes.dims, axes=(1, 1))


def axial_kernel_and_its_gates(layer, features):
    gates = []
    hooks = [look.gate.register_forward_hook(lambda *seen: gates.append(seen[-1])) for look in layer.looks]
    output = layer(features)
    for hook in hooks:
        hook.remove()
    return (output,), tuple(gates)


def block(sizes):
    return Block(sizes.shapes, sizes.inputs["x"][-1] // sizes.outputs["y"][-1])


def unit(ours, theirs):
    """Give the rows of one pre-activation unit."""
    pairs = {"norm1": "bn1", "norm2": "bn2", "norm3": "bn3", "conv1": "conv1", "conv2": "conv2", "conv3": "conv3"}
    return {f"{ours}.{one}": f"{theirs}.{other}" for one, other in pairs.items()}


LOOKS = {
    f"looks.{place}.{ours}": f"{theirs}attn{leaf}"
    for place, theirs in enumerate("HW")
    for ours, leaf in {
        "query": ".query_conv.conv",
        "key": ".key_conv.conv",
        "value": ".value_conv.conv",
        "scale.gate": ".gamma",
    }.items()
}
SE_BLOCK = Reference(block, {"": "", "se.gate": "se.fc"})
SE_RESNET20 = {f"layer{i}.{j}.se.gate": f"layer{i}.{j}.se.fc" for i in (1, 2, 3) for j in range(3)}
NETWORKS = {
    name: Reference(
        BranchNetwork,
        {"": "", **BRANCH_ROWS, "branch.evidence.0": f"att_layer{last}"},
        answer=lambda network, images: network.both(images),
    )
    for name, last in {"abn_resnet18": 4, "abn_resnet20_cifar": 3}.items()
}
TIMM = Reference(
    selective_kernel,
    {
        **{f"branches.{m}.0": f"paths.{m}.conv" for m in range(2)},
        **{f"branches.{m}.1": f"paths.{m}.bn" for m in range(2)},
        "reduce.0": "attn.fc_reduce",
        "reduce.1": "attn.bn",
        "select": "attn.fc_select",
    },
)
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
    "nonlocal_2d_agn": Reference(non_local, {"theta": "theta", "phi": "phi.0", "g": "g.0", "out": "W"}),
    "transattunet_pam": Reference(
        position_attention, {"theta": "query_conv", "phi": "key_conv", "g": "value_conv", "out": ""}
    ),
    "residual_attention_stage3": Reference(
        lambda sizes: ResidualAttention(sizes.inputs["x"][1], sizes.dims, BatchNorm),
        {
            **unit("first", "first_residual_blocks"),
            **{key: value for m in range(2) for key, value in unit(f"trunk.{m}", f"trunk_branches.{m}").items()},
            **{key: value for m in range(2) for key, value in unit(f"low.{m}", f"softmax1_blocks.{m}").items()},
            "gate": "softmax2_blocks",
            **unit("last", "last_blocks"),
        },
    ),
    "sk_timm_paper": TIMM,
    "sk_timm_split": TIMM,
    "sk_conv_ppplang": Reference(
        selective_kernel_of_growing_size, {"branches": "convs", "reduce": "fc", "select.parts": "fcs"}
    ),
    "se_resnet_basicblock": SE_BLOCK,
    "se_resnet_bottleneck": SE_BLOCK,
    "se_resnet20_cifar": Reference(Network, {"": "", **SE_RESNET20}),
    "caranet_aa_kernel": Reference(
        axial_kernel,
        {"start.0": "conv0.conv", "start.1": "conv1.conv", **LOOKS},
        answer=axial_kernel_and_its_gates,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_agrees_with_the_reference(name):
    check(name, TABLE[name])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_network_agrees_with_the_reference(name):
    check(name, NETWORKS[name], tolerance=1e-4)
