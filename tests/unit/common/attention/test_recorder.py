"""The recorder hears every site once, leaves no trace, and names what is wrong."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from common.attention.recorder import Recorder
from common.errors import AttentionError


def test_gives_what_the_layers_gave(gated_class, images):
    model = gated_class().eval()
    with Recorder(model) as recorder:
        logits = model(images)
        maps = recorder.take()
    stem = model.stem(images)
    assert list(maps) == ["se", "where", "gate"]
    torch.testing.assert_close(maps["se"], model.channel(stem.mean((2, 3))))
    assert maps["where"].shape == (5, 1, 16, 16)
    assert maps["gate"].shape == (5, 1, 8, 8)
    torch.testing.assert_close(logits, model(images))


def test_explicit_maps_explain_the_fused_output(tokens_class, images):
    model = tokens_class(layers=1).eval()
    fused = model(images)
    with Recorder(model) as recorder:
        explicit = model(images)
        rows = recorder.take()["layer0"]
    torch.testing.assert_close(fused, explicit, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows.sum(-1), torch.ones(5, 2, 17))
    assert model(images).equal(fused)


def test_leaves_no_trace(model, images):
    switches = [layer for layer in model.modules() if hasattr(layer, "explicit")]
    if switches:
        switches[0].explicit = True
    before = {id(layer): dict(layer.__dict__, training=layer.training) for layer in model.modules()}
    with pytest.raises(RuntimeError), Recorder(model):
        model(images[:, :, :1, :1].expand(-1, 2, -1, -1))  # two channels: the forward pass fails
    for layer in model.modules():
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks
        assert dict(layer.__dict__) == before[id(layer)]


def test_keeps_nothing_after_take(model, images):
    with Recorder(model) as recorder:
        model(images)
        kept = [weakref.ref(tensor) for tensor in recorder.take().values()]
        gc.collect()
        assert all(reference() is None for reference in kept)
        with pytest.raises(AttentionError, match="did not fire"):
            recorder.take()


def test_reduces_inside_the_hook_so_that_one_layer_lives_at_a_time(tokens_class, images):
    model, alive, most = tokens_class(layers=4), [], []

    def reduce(site, tensor):
        most.append(sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(tensor))
        return tensor.mean((1, 2))

    with torch.no_grad(), Recorder(model, reduce=reduce) as recorder:
        model(images)
        taken = recorder.take()
    assert [tensor.shape for tensor in taken.values()] == [(5, 17)] * 4
    assert most == [0, 0, 0, 0]


def test_keeps_the_graph_for_losses(model, images):
    with Recorder(model) as recorder:
        model(images)
        sum(tensor.square().sum() for tensor in recorder.take().values()).backward()
    assert next(model.parameters()).grad.abs().sum() > 0


def test_silent_fused_path(tokens_class, images):
    model = tokens_class()
    with Recorder(model) as recorder:
        model.layers[1].explicit = False
        model(images)
        with pytest.raises(AttentionError, match=r"'layer1'.*did not fire.*fused path"):
            recorder.take()


def test_fired_twice(gated_class, images):
    model = gated_class()
    with Recorder(model) as recorder:
        model(images)
        model(images)
        with pytest.raises(AttentionError, match=r"'se'.*fired 2 times"):
            recorder.take()
        model(images)
        assert set(recorder.take()) == {"se", "where", "gate"}


def test_a_subset_switches_only_its_layers(tokens_class, images):
    model = tokens_class(layers=3)
    with Recorder(model, model.attention_sites[1:2]) as recorder:
        assert [layer.explicit for layer in model.layers] == [False, True, False]
        model(images)
        assert list(recorder.take()) == ["layer1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": "spatail"}, r"submodule 'spatail', which does not exist. Did you mean 'spatial'\?"),
        ({"name": "se"}, "'se' twice"),
        ({"kind": "self-attention"}, "has no grid"),
        ({"kind": "gate"}, "of kind 'gate'. Allowed: channel-gate"),
    ],
)
def test_refuses_a_wrong_site_when_it_is_made(gated_class, change, message):
    model = gated_class()
    first, second, third = model.attention_sites
    model.attention_sites = (first, replace(second, **change), third)
    with pytest.raises(AttentionError, match=message):
        Recorder(model)


def test_refuses_a_model_without_sites(gated_class):
    model = gated_class()
    model.attention_sites = ()
    with pytest.raises(AttentionError, match="Gated names no attention site"):
        Recorder(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "channel-gate"}, r"\(5, 1, 16, 16\). Allowed for kind channel-gate is \[B, C\]"),
        ({"module": "stem"}, r"\(5, 6, 16, 16\). Allowed for kind spatial-gate"),
        ({"kind": "self-attention", "grid": (3, 3)}, r"with N = 9"),
    ],
)
def test_refuses_a_tensor_of_another_kind(gated_class, images, change, message):
    model = gated_class()
    model.attention_sites = (replace(model.attention_sites[1], **change),)
    with Recorder(model), pytest.raises(AttentionError, match=message):
        model(images)
    assert not model.spatial._forward_hooks


def test_refuses_other_heads_and_tuples(tokens_class, images):
    model = tokens_class(layers=1)
    model.attention_sites = (replace(model.attention_sites[0], heads=4),)
    with Recorder(model), pytest.raises(AttentionError, match="and 4 heads"):
        model(images)
    model.layers[0].weights = nn.Identity()
    model.layers[0].weights.forward = lambda scores: (scores, scores)
    with Recorder(model), pytest.raises(AttentionError, match="gives a tuple"):
        model(images)


def test_refuses_values_that_are_no_attention(gated_class, tokens_class, images):
    model = gated_class()
    model.spatial[1] = nn.Tanh()
    with Recorder(model) as recorder:
        model(images)
        with pytest.raises(AttentionError, match="'where' holds values from -"):
            recorder.take()
    broken = gated_class()
    nn.init.constant_(broken.psi[0].bias, float("nan"))
    with Recorder(broken) as recorder:
        broken(images)
        with pytest.raises(AttentionError, match=r"'gate' holds values from nan.*weights diverged"):
            recorder.take()
    tokens = tokens_class(layers=1)
    tokens.layers[0].weights = nn.Sigmoid()
    with Recorder(tokens) as recorder:
        tokens(images)
        with pytest.raises(AttentionError, match=r"rows that sum to .*softmax"):
            recorder.take()


def test_is_entered_once_at_a_time(gated_class):
    recorder = Recorder(gated_class())
    with recorder, pytest.raises(AttentionError, match="listens already"):
        recorder.__enter__()
