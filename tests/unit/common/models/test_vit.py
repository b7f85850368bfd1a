"""The vision transformer's size, grids and tokens."""

import pytest
import torch
from torch import nn

from common.config import ModelSection
from common.models.vit import ClassToken, Positions, vit


@pytest.mark.parametrize(("size", "grid"), [(28, 7), (48, 12), (50, 13), (63, 16), (64, 8), (96, 12), (256, 32)])
def test_patches_are_4_pixels_below_64_and_8_from_there(size, grid):
    model = vit(ModelSection(name="vit-tiny", width=4), 1, 1, size)
    assert {site.grid for site in model.attention_sites} == {(grid, grid)}
    assert model.positions.table.shape == (grid * grid + 1, 16)


def test_parameters_at_28_pixels_by_hand():
    dim, tokens = 64, 50
    embedding = 16 * dim + dim + dim + tokens * dim
    attention = dim * 3 * dim + 3 * dim + dim * dim + dim
    network = dim * 4 * dim + 4 * dim + 4 * dim * dim + dim
    blocks = 4 * (attention + network + 4 * dim)
    expected = embedding + blocks + 2 * dim + dim * 10 + 10
    model = vit(ModelSection(name="vit-tiny", width=16), 1, 10, 28)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected == 205_066


def test_class_token_comes_first_and_positions_add():
    token, positions = ClassToken(3), Positions(3, 3)
    nn.init.constant_(token.token, 5.0)
    tokens = torch.randn(2, 2, 3)
    longer = token(tokens)
    assert torch.equal(longer[:, 0], torch.full((2, 3), 5.0))
    assert torch.equal(longer[:, 1:], tokens)
    torch.testing.assert_close(positions(longer) - longer, positions.table.expand(2, 3, 3), atol=1e-6, rtol=0)


def test_places_are_told_apart():
    torch.manual_seed(0)
    model = vit(ModelSection(name="vit-tiny", width=4), 1, 2, 16).eval()
    images = torch.rand(1, 1, 16, 16)
    assert not torch.allclose(model(images), model(images.flip(-1)), atol=1e-5)
