"""The model of bags: equations by hand, padding and order change nothing, and what attention it may have."""

import pytest
import torch
from torch.nn import functional as F

from client.adaptation.views import views
from common.attention import ATTENTION
from common.attention.recorder import Recorder
from common.config import ModelSection
from common.errors import ConfigError
from common.items import BAG_SIDE
from common.models.build import build_model
from tests.fed_items import bags, fed, noisy

OF_BAGS = [name for name in ATTENTION if ATTENTION.load(name).takes == "bag"]
ORDERLESS = [*(name for name in OF_BAGS if name != "token-pooling"), "none"]
"""Layers that do not cut the bag into groups in its order."""


def make(attention="", width=4, channels=0):
    section = ModelSection(name="abmil", width=width, attention=attention)
    return build_model(section, channels or fed("abmil")[0], 2, BAG_SIDE, seed=1).eval()


def test_the_answer_is_that_of_the_equations():
    model, items = make(), noisy("abmil", 4)
    pool = model.pool
    for bag, logits in zip(items, model(items), strict=True):
        rows = bag[1:, bag[0, :, 0] > 0, 0].T
        hidden = F.relu(F.layer_norm(rows @ model.project.weight.T + model.project.bias, (32,)))
        content, gate = pool.content[0], pool.gate[0]
        tanh = torch.tanh(hidden @ content.weight.T + content.bias)
        scores = (tanh * torch.sigmoid(hidden @ gate.weight.T + gate.bias)) @ pool.score.weight[0]
        summary = torch.softmax(scores, 0) @ hidden
        torch.testing.assert_close(logits, summary @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize("attention", [*OF_BAGS, "none"])
def test_filling_up_changes_no_answer(attention):
    model, items = make(attention), noisy("abmil", 4)
    longer = F.pad(items, (0, 0, 0, 9))
    torch.testing.assert_close(model(longer), model(items))
    longer[:, 1:, 12:] = 7  # what stands in rows that are not real is never looked at
    torch.testing.assert_close(model(longer), model(items))


@pytest.mark.parametrize("attention", ORDERLESS)
def test_the_order_of_instances_changes_no_answer(attention):
    model, items = make(attention), noisy("abmil", 4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model(items[:, :, order]), model(items))


def test_without_attention_the_real_instances_count_alike():
    model, items = make("none"), noisy("abmil", 4)
    assert model.attention_sites == ()
    twice = torch.cat([items, items], 2)
    torch.testing.assert_close(model(twice), model(items))


def test_instances_that_are_not_real_get_no_weight():
    model, items = make(), noisy("abmil", 4)
    with Recorder(model) as recorder, torch.no_grad():
        model(items)
        weights = recorder.take()["pool"]
    assert weights.shape == (4, 12)
    assert ((weights > 0) == (items[:, 0, :, 0] > 0)).all()


def with_a_key(count, seed):
    """Bags of twenty instances of noise; in every second one instance, somewhere, has a large first feature."""
    source = torch.Generator().manual_seed(seed)
    features, labels = torch.randn(count, 6, 20, 1, generator=source), torch.arange(count) % 2
    keys = torch.randint(0, 17, (count,), generator=source)  # the last three are not real in some
    features[torch.arange(count), 0, keys, 0] += 6.0 * labels
    return bags(features), labels, keys


def test_it_finds_the_one_instance_that_matters_in_new_bags():
    (items, labels, _), model = with_a_key(256, 1), make().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = F.cross_entropy(model(items), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    items, labels, keys = with_a_key(64, 2)
    with Recorder(model.eval()) as recorder, torch.no_grad():
        right = (model(items).argmax(1) == labels).float().mean()
        weights = recorder.take()["pool"]
    assert right > 0.9
    assert weights[torch.arange(64), keys][labels == 1].mean() > 0.3  # of twenty instances an even share is 0.05


def test_the_size_for_features_of_a_resnet():
    assert sum(each.numel() for each in make(width=16, channels=2049).parameters()) < 400_000


def test_layers_of_images_and_impossible_bags_are_refused():
    with pytest.raises(ConfigError, match=r"'se' takes features.*Allowed there: .*gated-abmil.*none"):
        make("se")
    with pytest.raises(ConfigError, match="no feature"):
        make(channels=1)
    section = ModelSection(name="abmil", width=4, anatomy_bias="disc")
    with pytest.raises(ConfigError, match=r"'model\.anatomy-bias' = 'disc' works on pixels"):
        build_model(section, 6, 2, BAG_SIDE, seed=0)
    with pytest.raises(ConfigError, match=r"one answer per pixel.*set `task\.name`"):
        build_model(ModelSection(name="abmil", width=4), 6, 2, BAG_SIDE, seed=0, dense=True)


def test_bags_have_no_views():
    with pytest.raises(ConfigError, match="adaptation by views of an image works on pixels"):
        views(noisy("abmil", 2), torch.Generator())
