"""The attention branch against its formula."""

import pytest
import torch
from torch.nn import functional as F

from common.attention.attention_branch import AttentionBranch
from common.errors import ConfigError


def test_equals_the_formula_and_answers_itself():
    torch.manual_seed(0)
    layer = AttentionBranch(8, classes=3)
    features = torch.randn(2, 8, 6, 5)
    first, second = layer.evidence[1], layer.gate[0]

    def normalised(x):
        centred = x - x.mean((1, 2, 3), keepdim=True)
        return centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()

    evidence = torch.einsum("oc,bchw->bohw", first.weight.flatten(1), normalised(features))
    evidence = normalised(evidence).clamp(min=0)
    patches = F.unfold(evidence, 3, padding=1)
    gates = torch.sigmoid(normalised((second.weight.flatten(1) @ patches).view(2, 1, 6, 5)))
    strengthened, got = layer.attend(features)
    torch.testing.assert_close(got, gates, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(strengthened, features * (1 + gates), atol=1e-5, rtol=1e-5)
    answers = torch.einsum("oc,bchw->bo", layer.answer.weight.flatten(1), evidence) / 30
    torch.testing.assert_close(layer.logits(features), answers, atol=1e-5, rtol=1e-5)


def test_logits_leave_out_what_is_masked():
    torch.manual_seed(1)
    layer = AttentionBranch(4, classes=2)
    features, mask = torch.randn(2, 4, 6, 6), torch.ones(2, 6, 6, dtype=torch.bool)
    mask[:, 4:] = False
    changed = torch.where(mask[:, None], features, 9.0)
    torch.testing.assert_close(layer.logits(changed, mask), layer.logits(features, mask), atol=0, rtol=0)


def test_without_classes_there_is_no_answer():
    layer = AttentionBranch(8)
    assert layer.answer is None
    with pytest.raises(ConfigError, match="build it with `classes`"):
        layer.logits(torch.randn(1, 8, 4, 4))


@pytest.mark.parametrize("grid", [(1, 1), (1, 1, 1)])
def test_one_position_is_refused(grid):
    with pytest.raises(ConfigError, match="earlier, finer stage"):
        AttentionBranch.build(8, grid)
