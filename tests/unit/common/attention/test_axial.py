"""Axial attention against loops over places, and against full attention on a single line."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.attention.axial import AxialAttention
from common.attention.axis import AxisAttention, Places, halved_heads
from common.attention.gated_axial import GatedAxialAttention
from common.attention.heads import Heads
from common.attention.self_attention import SelfAttention
from common.errors import AttentionError, ConfigError


def plain(channels):
    return nn.Identity()


class Equal(nn.Module):
    """Scores that are weighed by their published factor 1 / sqrt(size) alone."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, scores):
        return scores / self.size**0.5


def slow_twin(layer, features):
    """Equation by equation, place by place, with the gates of a gated layer."""
    axis, heads, places = layer.axis, layer.heads, layer.places
    lines = layer.qkv(features).movedim(2 + axis, -1)
    size, answer = features.shape[1] // heads, torch.zeros_like(features.movedim(2 + axis, -1))
    gates = [getattr(getattr(places, f"{n}_gate"), "gate", torch.ones(1)) for n in ("query", "key", "value", "place")]
    span = (places.query.table.shape[1] + 1) // 2
    for image, head in itertools.product(range(len(features)), range(heads)):
        part = lines[image, 2 * size * head : 2 * size * (head + 1)]
        for other in itertools.product(*(range(side) for side in lines.shape[2:-1])):
            query, key, value = part[(slice(None), *other)].split([size // 2, size // 2, size])
            for i in range(lines.shape[-1]):
                scores, values = [], []
                for j in range(lines.shape[-1]):
                    to, back = j - i + span - 1, i - j + span - 1
                    scores.append(
                        query[:, i] @ key[:, j]
                        + gates[0] * (query[:, i] @ places.query.table[:, to])
                        + gates[1] * (key[:, j] @ places.key.table[:, back])
                    )
                    values.append(gates[2] * value[:, j] + gates[3] * places.value.table[:, to])
                weights = F.softmax(torch.cat(scores), 0)
                mixed = sum(weight * vector for weight, vector in zip(weights, values, strict=True))
                answer[(image, slice(size * head, size * (head + 1)), *other, i)] = mixed
    return answer.movedim(-1, 2 + axis)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("grid", "axis"), [((3, 4), 0), ((3, 4), 1), ((2, 3, 4), 1)])
@torch.no_grad()
def test_equals_the_equation_place_by_place(grid, axis, gated):
    torch.manual_seed(0)
    places = Places(4, span=5, gated=gated)  # built for longer lines than it meets
    layer = AxisAttention(8, len(grid), axis, 2, places, plain)
    layer.balance = nn.Identity()
    features = torch.randn(2, 8, *grid)
    torch.testing.assert_close(layer.attend(features)[0], slow_twin(layer, features), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_map_of_one_line_is_self_attention():
    """Queries and keys have half the size of values, so the twin's other halves are zero."""
    torch.manual_seed(0)
    layer = AxisAttention(8, 2, 0, 1, None, plain)
    layer.balance = Equal(8)
    full = SelfAttention(8, heads=1)
    full.proj = nn.Identity()
    weight = layer.qkv.weight[..., 0, 0]
    full.qkv.weight.zero_()
    full.qkv.bias.zero_()
    full.qkv.weight[0:4], full.qkv.weight[8:12], full.qkv.weight[16:] = weight[:4], weight[4:8], weight[8:]
    features = torch.randn(2, 8, 6, 1)
    mixed, maps = layer.attend(features)
    expected, found = full.attend(features[..., 0].transpose(1, 2))
    torch.testing.assert_close(mixed[..., 0].transpose(1, 2), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(maps[:, 0], found, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_two_axes_reach_every_place_and_one_axis_only_its_line():
    torch.manual_seed(0)
    layer = AxialAttention(8, (4, 5), heads=2, norm=plain)
    for axis in layer.axes:
        axis.balance = nn.Identity()
    features = torch.randn(1, 8, 4, 5)
    changed = features.clone()
    changed[..., 1, 2] += 1
    first = (layer.axes[0](changed) - layer.axes[0](features)).abs().sum(1)[0] > 1e-6
    both = (layer(changed) - layer(features)).abs().sum(1)[0] > 1e-7
    assert first[:, 2].all()
    assert first.sum() == 4
    assert both.all()


@torch.no_grad()
def test_gates_at_one_change_nothing_and_at_zero_leave_no_places():
    torch.manual_seed(0)
    gated = GatedAxialAttention.build(8, (4, 5))
    ungated = AxialAttention.build(8, (4, 5))
    ungated.load_state_dict({k: v for k, v in gated.state_dict().items() if "gate" not in k})
    features = torch.randn(2, 8, 4, 5)
    assert not torch.allclose(gated(features), ungated(features))
    for axis in gated.axes:
        for gate in (axis.places.query_gate, axis.places.key_gate, axis.places.value_gate, axis.places.place_gate):
            gate.gate.fill_(1)
    torch.testing.assert_close(gated(features), ungated(features), atol=0, rtol=0)


def test_longer_lines_than_it_was_built_for_are_refused():
    with pytest.raises(AttentionError, match=r"a line of 6 places\. Allowed are 4 at most"):
        AxialAttention.build(8, (4, 4))(torch.randn(1, 8, 6, 4))


def test_odd_channels_are_refused():
    assert halved_heads(12) == 3
    with pytest.raises(ConfigError, match="met 9 channels"):
        AxialAttention.build(9, (4, 4))
    with pytest.raises(ConfigError, match="Take a multiple of 8"):
        AxialAttention(12, (4, 4), heads=4)
    with pytest.raises(ConfigError, match="3 heads do not divide"):
        Heads(8, 3)
