"""The door to the models: what it refuses and what it promises."""

import pytest
import torch
from torch import Tensor

from common.attention.base import AttentionModel
from common.config import ModelSection
from common.errors import ConfigError, UnknownNameError
from common.models import MODELS
from common.models.build import build_model

SETTINGS = ModelSection(name="se-convnet", width=8)


class Broken(AttentionModel):
    """Gives NaN."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3), keepdim=True).flatten(1) * float("nan")


@pytest.mark.parametrize(
    ("channels", "outputs", "size", "says"),
    [(2, 1, 32, "2 channels"), (0, 1, 32, "0 channels"), (1, 0, 32, "0 outputs"), (1, 1, 8, "side of 8 pixels")],
)
def test_impossible_shapes_are_refused(channels, outputs, size, says):
    with pytest.raises(ConfigError, match=says):
        build_model(SETTINGS, channels, outputs, size, seed=0)


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'se-convnet'"):
        build_model(ModelSection(name="se-convnets", width=8), 1, 1, 32, seed=0)


def test_a_model_that_gives_nan_is_refused(monkeypatch):
    monkeypatch.setattr(MODELS, "load", lambda name: lambda *arguments: Broken())
    with pytest.raises(ConfigError, match="1 not finite"):
        build_model(SETTINGS, 1, 1, 32, seed=0)


def test_the_global_random_state_stays_and_does_not_matter():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_model(SETTINGS, 1, 1, 32, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    second, third = (build_model(SETTINGS, 1, 1, 32, seed=seed) for seed in (3, 4))
    for name, array in first.state_dict().items():
        assert torch.equal(array, second.state_dict()[name])
    assert not torch.equal(first.stem.weight, third.stem.weight)


def test_the_model_comes_in_training_mode():
    assert build_model(SETTINGS, 1, 1, 32, seed=3).training
