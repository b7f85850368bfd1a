"""CBAM's spatial half alone against CBAM, and against its formula."""

import torch
from torch import nn
from torch.nn import functional as F

from common.attention.cbam import Cbam
from common.attention.spatial_gate import SpatialAttention


def test_equals_the_formula():
    torch.manual_seed(0)
    layer = SpatialAttention(3)
    features = torch.randn(2, 5, 6, 7)
    summaries = torch.stack([features.mean(1), features.max(1).values], 1)
    patches = F.unfold(summaries, 3, padding=1)
    evidence = (layer.gate.conv.weight.reshape(1, -1) @ patches).view(2, 1, 6, 7) + layer.gate.conv.bias
    gated, gates = layer.attend(features)
    torch.testing.assert_close(gates, 1 / (1 + torch.exp(-evidence)), atol=1e-6, rtol=0)
    torch.testing.assert_close(gated, features * gates, atol=0, rtol=0)


def test_is_cbam_whose_channels_are_open():
    torch.manual_seed(1)
    both, alone = Cbam(8), SpatialAttention()
    alone.gate.load_state_dict(both.spatial.state_dict())
    nn.init.constant_(both.channel.mlp[2].bias, 50.0)
    features = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(both(features), alone(features))
