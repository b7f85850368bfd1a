"""Selective kernels against their formula."""

import pytest
import torch
from torch import nn

from common.attention.selective_kernel import Branches, SelectiveKernel


@pytest.mark.parametrize("shape", [(8, 6), (5, 4, 6)], ids=["2d", "3d"])
@pytest.mark.parametrize("wiring", [Branches(), Branches(3, groups=2, hidden=5), Branches(2, split=True)])
def test_equals_the_formula(shape, wiring):
    torch.manual_seed(0)
    layer = SelectiveKernel(12, wiring, len(shape))
    features = torch.randn(2, 12, *shape)
    width = 12 // wiring.count if wiring.split else 12
    answers = []
    for m, branch in enumerate(layer.branches):
        conv, norm = branch[0], branch[1]
        assert conv.dilation == (m + 1,) * len(shape)
        given = features[:, m * width : (m + 1) * width] if wiring.split else features
        answers.append(norm(conv(given)).clamp(min=0))
    mean = sum(answers).flatten(2).mean(2)
    hidden = mean @ layer.reduce[0].weight.T
    centred = hidden - hidden.mean(1, keepdim=True)
    hidden = (centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()).clamp(min=0)
    scores = torch.exp(hidden @ layer.select.weight.T).view(2, wiring.count, 12)
    weights = scores / scores.sum(1, keepdim=True)
    mixed, got = layer.attend(features)
    torch.testing.assert_close(got, weights, atol=1e-6, rtol=1e-5)
    expected = torch.einsum("mbc...,bmc->bc...", torch.stack(answers), weights)
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-5)


def test_without_evidence_the_branches_count_alike():
    layer = SelectiveKernel(8)
    nn.init.zeros_(layer.select.weight)
    features = torch.randn(2, 8, 6, 6)
    expected = sum(branch(features) for branch in layer.branches) / 2
    torch.testing.assert_close(layer(features), expected, atol=1e-6, rtol=1e-5)
