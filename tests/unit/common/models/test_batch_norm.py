"""BatchNorm is there when it is declared, and then in the whole body."""

import pytest
import torch
from torch import nn

from client.private.checks import refuse_mixing
from common.attention.base import AttentionLayer
from common.config import ModelSection
from common.errors import ConfigError, UnsupportedModelError
from common.models.build import build_model
from common.models.norms import norm_parameters


def make(name, dense=False, **more):
    return build_model(ModelSection(name=name, width=8, batch_norm=True, **more), 1, 2, 16, seed=1, dense=dense)


@pytest.mark.parametrize(("name", "dense"), [("se-convnet", False), ("cbam-resnet", False), ("attention-unet", True)])
def test_the_body_has_it_and_attention_layers_do_not(name, dense):
    model = make(name, dense)
    inside = [part for layer in model.modules() if isinstance(layer, AttentionLayer) for part in layer.modules()]
    assert not any(isinstance(part, nn.BatchNorm2d) for part in inside)
    body = [part for part in model.modules() if all(part is not other for other in inside)]
    assert not any(isinstance(part, nn.GroupNorm) for part in body)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in body) >= 3
    assert any(key.endswith("running_mean") for key in norm_parameters(model))


def test_it_is_what_the_literature_means():
    """In training an image's answer depends on its batch, in evaluation it does not."""
    model = make("se-convnet")
    images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(model.train()(images)[:1], model(images[:2])[:1], atol=1e-4)
        torch.testing.assert_close(model.eval()(images)[:1], model(images[:1]))


def test_it_is_refused_where_there_is_nothing_to_replace_and_under_privacy():
    with pytest.raises(ConfigError, match="no GroupNorm"):
        make("vit-tiny")
    with pytest.raises(UnsupportedModelError, match="GroupNorm"):
        refuse_mixing(make("se-convnet"))
