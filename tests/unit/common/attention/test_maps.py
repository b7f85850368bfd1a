"""Maps lie on the image, sum to one, and show what the layers gave."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import zoom
from torch import nn

from common.attention.base import AttentionModel, AttentionSite
from common.attention.maps import attention_maps
from common.attention.recorder import Recorder
from common.errors import AttentionError


def test_maps_are_distributions_on_the_image(model, images):
    modes = [layer.training for layer in model.modules()]
    maps = attention_maps(model, images)
    assert list(maps) == [site.name for site in model.attention_sites]
    for found in maps.values():
        assert found.shape == (5, 16, 16)
        assert found.dtype == torch.float32
        assert found.min() >= 0
        torch.testing.assert_close(found.sum((1, 2)), torch.ones(5))
    assert [layer.training for layer in model.modules()] == modes
    assert all(not layer._forward_hooks for layer in model.modules())


def test_gates_are_shown_as_they_are(gated_class, images):
    model = gated_class().eval()
    with torch.no_grad(), Recorder(model) as recorder:
        model(images)
        gates = recorder.take()
    maps = attention_maps(model, images)
    full = gates["where"][:, 0]
    torch.testing.assert_close(maps["where"], full / full.sum((1, 2), keepdim=True))
    for found, half in zip(maps["gate"], gates["gate"][:, 0], strict=True):  # oracle: Pillow's bilinear enlargement
        large = np.asarray(Image.fromarray(half.numpy()).resize((16, 16), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(found.numpy(), large / large.sum(), atol=1e-6)


def test_channel_gates_weigh_the_features_they_scale(gated_class, images):
    model = gated_class().eval()
    with torch.no_grad():
        features = model.stem(images)
        gated = features * model.channel(features.mean((2, 3)))[:, :, None, None]
    expected = gated.abs().sum(1)
    found = attention_maps(model, images)["se"]
    torch.testing.assert_close(found, expected / expected.sum((1, 2), keepdim=True))
    model.attention_sites = (replace(model.attention_sites[0], features=""), *model.attention_sites[1:])
    assert list(attention_maps(model, images)) == ["where", "gate"]
    model.attention_sites = model.attention_sites[:1]
    assert attention_maps(model, images) == {}


def test_the_class_token_that_looks_at_one_patch_lights_it_up(tokens_class, images):
    model = tokens_class(layers=1, heads=2)

    class Fixed(torch.nn.Module):
        def forward(self, scores):
            rows = torch.full_like(scores, 1 / 17)
            rows[:, :, 0] = 0
            rows[:, :, 0, 0] = 0.5  # to itself: renormalised away
            rows[:, 0, 0, 1 + 5] = 0.5  # head 0 looks at row 1, column 1
            rows[:, 1, 0, 1 + 10] = 0.5  # head 1 looks at row 2, column 2
            return rows

    model.layers[0].weights = Fixed()
    found = attention_maps(model, images)["layer0"]
    quarters = found.reshape(5, 4, 4, 4, 4).sum((2, 4))
    assert quarters[0].argmax() in (5, 10)
    torch.testing.assert_close(quarters[:, 1, 1], quarters[:, 2, 2])
    assert found[:, 0, -1].max() < 1e-9
    assert found[:, 5, 5].min() > found[:, 7, 8].max()


def test_autocast_changes_little(model, images):
    plain = attention_maps(model, images)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attention_maps(model, images)
    for name, found in mixed.items():
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.sum((1, 2)), torch.ones(5))
        assert (found - plain[name]).abs().sum((1, 2)).max() < 0.05


class Volumes(AttentionModel):
    """Gates, tokens and a neighbourhood on a volume, each map given from outside."""

    def __init__(self, gates, rows, around):
        super().__init__()
        self.gate, self.maps, self.near = Given(gates), Given(rows), Given(around)
        self.scale, self.channels = nn.Conv3d(1, 2, 1), Given(torch.tensor([[0.25, 1.0]]).expand(len(gates), 2))
        grid = (2, 3, 4)
        self.attention_sites = (
            AttentionSite("gate", "spatial-gate", "gate", grid),
            AttentionSite("flat", "spatial-gate", "gate.flat"),
            AttentionSite("tokens", "self-attention", "maps", grid, cls=True),
            AttentionSite("near", "neighbourhood", "near", grid, window=(1, 1, 3)),
            AttentionSite("channels", "channel-gate", "channels", features="scale"),
        )

    def forward(self, images):
        self.scale(images)
        return [part(images) for part in (self.gate, self.gate.flat, self.maps, self.near, self.channels)]


class Given(nn.Module):
    def __init__(self, tensor):
        super().__init__()
        self.tensor = tensor
        if tensor.ndim == 5:
            self.flat = Given(tensor[:, :, 0])

    def forward(self, images):
        return self.tensor


def test_volumes_are_shown_as_volumes():
    source = torch.Generator().manual_seed(4)
    gates = torch.rand(2, 1, 2, 3, 4, generator=source)
    rows = torch.randn(2, 3, 25, 25, generator=source).softmax(-1)
    near = torch.randn(2, 3, 24, 3, generator=source).softmax(-1)
    model, images = Volumes(gates, rows, near), torch.randn(2, 1, 4, 6, 8, generator=source)
    maps = attention_maps(model, images)
    assert list(maps) == ["gate", "tokens", "near", "channels"]  # a gate without grid has two axes
    looked = (rows[:, :, 0, 1:] / rows[:, :, 0, 1:].sum(-1, keepdim=True)).mean(1).reshape(2, 2, 3, 4)
    weights = near.mean(1).reshape(2, 2, 3, 4, 3)  # to the left, here, to the right
    received = weights[..., 1].clone()
    received[..., :-1] += weights[..., 1:, 0]
    received[..., 1:] += weights[..., :-1, 2]
    for name, coarse in (("gate", gates[:, 0]), ("tokens", looked), ("near", received)):
        for found, small in zip(maps[name].numpy(), coarse.numpy(), strict=True):
            # Oracle: SciPy's linear zoom with pixel centres, its borders held.
            large = zoom(small.astype(np.float64), 2, order=1, mode="nearest", grid_mode=True)
            np.testing.assert_allclose(found, large / large.sum(), atol=1e-6)
    with torch.no_grad():
        strength = model.scale(images).abs()
    expected = 0.25 * strength[:, 0] + strength[:, 1]
    torch.testing.assert_close(maps["channels"], expected / expected.sum((1, 2, 3), keepdim=True))


def test_names_features_that_do_not_fit(gated_class, images):
    model = gated_class()
    site = model.attention_sites[0]
    model.attention_sites = (replace(site, features="stemm"),)
    with pytest.raises(AttentionError, match="'stemm', which do not exist"):
        attention_maps(model, images)
    model.attention_sites = (replace(site, features="head"),)
    with pytest.raises(AttentionError, match=r"gave shape \(5, 2\) for gates of shape \(5, 6\)"):
        attention_maps(model, images)
    assert not model.head._forward_hooks
    assert not model.channel._forward_hooks
