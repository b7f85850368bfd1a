"""CBAM against its formula, and against the reference output where that is at hand."""

import torch
from torch.nn import functional as F

from common.attention.cbam import Cbam


def formula(features, layer):
    """Woo et al. 2018, eq. 1-3, one image and one channel at a time."""
    first, second = layer.channel.mlp[0], layer.channel.mlp[2]

    def network(summary):
        return torch.clamp(summary @ first.weight.T + first.bias, min=0) @ second.weight.T + second.bias

    rows, channels, places = [], [], []
    for image in features:
        mean = torch.stack([plane.mean() for plane in image])
        most = torch.stack([plane.max() for plane in image])
        channel = 1 / (1 + torch.exp(-(network(mean) + network(most))))
        gated = torch.stack([gate * plane for gate, plane in zip(channel, image, strict=True)])
        summaries = torch.stack([gated.mean(0), gated.max(0).values])[None]
        place = 1 / (1 + torch.exp(-F.conv2d(summaries, layer.spatial.conv.weight, layer.spatial.conv.bias, padding=3)))
        rows.append(gated * place[0])
        channels.append(channel)
        places.append(place[0])
    return torch.stack(rows), torch.stack(channels), torch.stack(places)


def test_equals_the_formula():
    torch.manual_seed(0)
    layer = Cbam(8, reduction=2)
    torch.nn.init.normal_(layer.channel.mlp[0].bias)
    features = torch.randn(3, 8, 9, 10)
    for got, expected in zip(layer.attend(features), formula(features, layer), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
