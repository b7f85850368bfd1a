"""Which layer stands where, and that what stands around it changes nothing but the shape."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from common.attention import ATTENTION
from common.attention.attention_gate import AttentionGate
from common.attention.base import AttentionLayer, AttentionSite
from common.attention.recorder import Recorder
from common.attention.self_attention import SelfAttention
from common.attention.squeeze_excitation import SqueezeExcitation
from common.config import ModelSection
from common.errors import ConfigError
from common.models.build import build_model
from common.models.on_grid import (
    BagOfPositions,
    FeaturesOfTokens,
    FramesOfTokens,
    PairOfTokens,
    SelfGated,
    TokensOfFeatures,
    flatten,
    halve,
    unflatten,
)
from common.models.placement import feature_block, key_kinds, sites_of, spread, token_block
from common.models.unet import volume_unet


class Shown(AttentionLayer):
    """Gives back its first input and keeps all of them; a bag is averaged."""

    def forward(self, *inputs):
        self.seen = inputs
        return inputs[0].mean(1) if self.takes == "bag" else inputs[0]


def test_flatten_lines_positions_up_row_by_row():
    features = torch.arange(24.0).reshape(1, 2, 3, 4)
    tokens = flatten(features)
    assert torch.equal(tokens[0, 1 * 4 + 2], features[0, :, 1, 2])
    assert torch.equal(unflatten(tokens, (3, 4)), features)


def test_halve_averages_over_what_there_is():
    found = halve(torch.arange(15.0).reshape(1, 1, 3, 5))
    expected = torch.tensor([[(0 + 1 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4, (4 + 9) / 2], [10.5, 12.5, 14]])
    torch.testing.assert_close(found[0, 0], expected)
    assert halve(torch.zeros(1, 2, 5, 4, 3)).shape == (1, 2, 3, 2, 2)


def test_tokens_of_features_is_a_norm_the_layer_and_a_shortcut():
    block, features = TokensOfFeatures(Shown(), 6, (3, 4)), torch.randn(2, 6, 3, 4)
    expected = features + nn.functional.layer_norm(features.movedim(1, -1), (6,)).movedim(-1, 1)
    torch.testing.assert_close(block(features), expected)


def test_a_pair_sees_the_same_tokens_at_half_the_grid():
    layer, features = Shown(), torch.randn(2, 6, 4, 4)
    assert torch.equal(PairOfTokens(layer, (4, 4), (4, 4))(flatten(features)), flatten(features))
    torch.testing.assert_close(layer.seen[1], flatten(nn.functional.avg_pool2d(features, 2)))


def test_a_frame_is_a_plane():
    layer, volume = Shown(), torch.randn(2, 6, 3, 4, 5)
    assert torch.equal(FramesOfTokens(layer, (3, 4, 5))(flatten(volume)), flatten(volume))
    torch.testing.assert_close(layer.seen[0][:, 1], flatten(volume[:, :, 1]))


def test_features_of_tokens_a_gate_by_itself_and_a_bag():
    features = torch.randn(2, 6, 4, 4)
    layer = Shown()
    assert torch.equal(FeaturesOfTokens(layer, (4, 4))(flatten(features)), flatten(features))
    assert torch.equal(layer.seen[0], features)
    SelfGated(layer, (4, 4))(features)
    torch.testing.assert_close(layer.seen[1], halve(features))
    layer.takes = "bag"
    torch.testing.assert_close(BagOfPositions(layer, (16,))(features), features.mean((2, 3)))


def test_layers_stand_as_they_are_where_nothing_is_missing():
    assert isinstance(feature_block("se", 8, (4, 4)), SqueezeExcitation)
    assert isinstance(token_block("self-attention", 8, (4, 4)), SelfAttention)
    gated = feature_block("attention-gate", 8, (4, 4))
    assert isinstance(gated.layer, AttentionGate)
    assert [site.module for site in sites_of(gated, "here", "name", (4, 4))] == ["here.layer.gate"]
    tokens = feature_block("self-attention", 8, (4, 6))
    (site,) = sites_of(tokens, "here", "name", (4, 6), "before")
    assert (site.module, site.name, site.grid, site.features) == ("here.layer.maps", "name", (4, 6), "")
    assert sites_of(feature_block("none", 8, (4, 4)), "here", "name", (4, 4)) == ()


class Pooling(AttentionLayer):
    """Weighs the instances of a bag, or the frames of a volume, by what one linear map finds in them."""

    def __init__(self, channels):
        super().__init__()
        self.score, self.weights = nn.Linear(channels, 1), nn.Softmax(1)

    @classmethod
    def build(cls, channels, grid, other=0):
        return cls(channels)

    def sites(self, grid, cls=False):
        return (AttentionSite("", "pooling", "weights"),)

    def forward(self, inputs):
        if self.takes == "frames":
            weights = self.weights(self.score(inputs.mean(2))[..., 0])
            return inputs * weights[..., None, None]
        return (inputs * self.weights(self.score(inputs)[..., 0])[..., None]).sum(1)


@pytest.fixture
def pooling(monkeypatch):
    def register(takes, dims):
        layer = type("Pooling", (Pooling,), {"takes": takes, "dims": dims})
        monkeypatch.setitem(sys.modules, "only_for_this_test", SimpleNamespace(layer=layer))
        monkeypatch.setitem(ATTENTION._table, "pooled", "only_for_this_test:layer")

    return register


@pytest.mark.parametrize("name", ["convnet", "resnet-ws"])
def test_a_bag_takes_the_place_of_the_final_pooling(name, pooling):
    pooling("bag", (1,))
    model = build_model(ModelSection(name=name, width=8, attention="pooled"), 1, 2, 28, seed=0).eval()
    (site,) = model.attention_sites
    with Recorder(model) as recorder, torch.no_grad():
        model(torch.randn(3, 1, 28, 28))
        assert recorder.take()[site.name].shape == (3, 16)
    assert site.module == "pool.layer.weights"
    with pytest.raises(ConfigError, match="takes bag"):
        build_model(ModelSection(name="unet", width=8, attention="pooled"), 1, 2, 28, seed=0, dense=True)


@pytest.mark.parametrize("placement", ["skip", "block"])
def test_frames_stand_in_volumes_only(placement, pooling):
    pooling("frames", (2,))
    section = ModelSection(name="unet", width=8, attention="pooled", placement=placement)
    with pytest.raises(ConfigError, match=r"takes frames.*images of 2 axes"):
        build_model(section, 1, 2, 28, seed=0, dense=True)
    model = volume_unet(section, 1, 2, (16, 24, 16)).eval()
    with Recorder(model) as recorder, torch.no_grad():
        assert model(torch.randn(2, 1, 16, 24, 16)).shape == (2, 2, 16, 24, 16)
        shapes = [tuple(found.shape) for found in recorder.take().values()]
    assert shapes == ([(2, 4), (2, 8), (2, 16)] if placement == "skip" else [(2, 16), (2, 8), (2, 4), (2, 2)])


def test_costly_layers_stand_on_small_grids_or_on_the_coarsest():
    grids = [(40, 40), (20, 20), (10, 10)]
    assert spread("se", grids) == ("se",) * 3
    assert spread("self-attention", grids) == ("none", "self-attention", "self-attention")
    assert spread("self-attention", [(64, 64), (32, 32)]) == ("none", "self-attention")
    assert spread("self-attention", [(8, 8), (4, 4), (2, 4)]) == ("self-attention", "self-attention", "none")
    with pytest.raises(ConfigError, match="1,185,921 numbers"):
        spread("self-attention", [(66, 66), (33, 33)])
    with pytest.raises(ConfigError, match="sides below four"):
        spread("self-attention", [(3, 8)])


def test_asking_what_a_layer_costs_leaves_the_random_state():
    state = torch.get_rng_state()
    assert key_kinds("cbam", 2) == key_kinds("none", 2) == frozenset()
    assert key_kinds("self-attention", 3) == {"self-attention"}
    assert torch.equal(state, torch.get_rng_state())
