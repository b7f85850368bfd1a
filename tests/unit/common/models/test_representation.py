"""A drawn representation: its law in training, the features otherwise, and the class laws."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from common.config import load_run_config
from common.errors import ConfigError
from common.models.build import build_model
from common.models.representation import Representation


def settings(**changes):
    values = {"strategy.name": "fedsr", "model.representation": "gaussian", "model.width": 8}
    return load_run_config({**values, **changes}).model


def test_it_draws_around_the_features_with_its_deviation():
    representation = Representation(2, 3).train()
    features = torch.tensor([[1.0, -2.0, 0.5]]).expand(20_000, 3)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        drawn = representation(features)
        deviation = representation.deviation(features[:1])[0]
    torch.testing.assert_close(drawn.mean(0), features[0], atol=0.04, rtol=0)
    torch.testing.assert_close(drawn.std(0), deviation, rtol=0.03, atol=0)


@pytest.mark.parametrize("name", ["se-convnet", "vit-tiny", "cbam-resnet"])
def test_answers_are_those_of_the_features_outside_training(name):
    model = build_model(settings(**{"model.name": name}), 1, 1, 32, seed=1).eval()
    plain = build_model(load_run_config({"model.name": name, "model.width": 8}).model, 1, 1, 32, seed=1).eval()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if key in plain.state_dict()})
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model(images), plain(images))
        assert torch.equal(model.features(images), plain.features(images))
        model.train()
        assert not torch.equal(model(images), model(images))


def test_a_copy_draws_with_its_own_deviation():
    model = build_model(settings(), 1, 1, 32, seed=1)
    copy = deepcopy(model)
    with torch.no_grad():
        copy.representation.spread.bias.fill_(30.0)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        near = model.train()(images)
        torch.manual_seed(0)
        far = copy.train()(images)
    assert (far - near).abs().max() > 1


def test_class_laws_are_picked_by_label():
    laws = Representation(3, 2).laws
    with torch.no_grad():
        laws.centre.copy_(torch.arange(6.0).reshape(3, 2))
    centre, wide = laws.of(torch.tensor([2, 0]))
    assert centre.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    torch.testing.assert_close(wide, F.softplus(torch.ones(2, 2)))


def test_a_segmenter_is_refused():
    with pytest.raises(ConfigError, match=r"head of UNet is no linear layer"):
        build_model(settings(**{"model.name": "attention-unet"}), 1, 1, 32, seed=1, dense=True)
