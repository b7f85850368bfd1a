"""Axial reverse attention inside the whole of CaraNet, and the pyramid before it, against what its code answers."""

import pytest
import torch

from common.attention.axial_reverse import AxialReverseAttention
from tests.golden.published_caranet import Parts, backbone, partial_decoder, pyramid, resized
from tests.golden.reference import Reference, close, load
from tests.golden.test_gates import LOOKS
from tests.golden.test_self_attention import count, golden

__all__ = ["golden"]

SUMS = 1e-3
"""Axial gates are sigmoids of sums up to 441: rounding to float32 alone moves them by 3e-4, ours and theirs."""


@pytest.mark.parametrize("golden", ["caranet_cfp"], indirect=True)
@torch.no_grad()
def test_pyramid(golden):
    """It has no attention and no layer of ours: held here alone, because it feeds ours below."""
    weights, tensors, _ = golden
    close(pyramid(tensors["x"], weights), tensors["y"])


def reverse_attention(weights, level):
    """Ours between a prediction and features, with the weights of one level."""
    kernel = f"aa_kernel_{level}"
    names = {"axial.start.0": f"{kernel}.conv0.conv", "axial.start.1": f"{kernel}.conv1.conv"}
    names |= {f"axial.{ours}": f"{kernel}.{theirs}" for ours, theirs in LOOKS.items()}
    layer = AxialReverseAttention(32, 1, axes=(1, 1))
    load(layer, weights, Reference(AxialReverseAttention, names))
    return layer.eval()


@pytest.mark.parametrize("golden", ["caranet_small"], indirect=True)
@torch.no_grad()
def test_reverse_attention_inside_the_network(golden):
    """Three levels, the deepest first; each answer corrects the prediction, which the next level is given."""
    weights, tensors, maps = golden
    parts = Parts(weights)
    levels = [parts.conv_act(stage, f"rfb{index}_1") for index, stage in enumerate(backbone(tensors["x"], weights), 2)]
    first = partial_decoder(*reversed(levels), weights)
    answers, found = [resized(first, 8)], []
    prediction = resized(first, 0.25)
    for level, factor in ((3, 32), (2, 16), (1, 8)):
        features = pyramid(levels[level - 1], weights, f"CFP_{level}.")
        layer = reverse_attention(weights, level)
        assert count(layer) == sum(v.numel() for k, v in weights.items() if k.startswith(f"aa_kernel_{level}."))
        gates = []
        for look in layer.axial.looks:
            look.gate.register_forward_hook(lambda *seen, gates=gates: gates.append(seen[-1]))
        mixed, reverse = layer.attend(features, prediction)
        found += [(1 - reverse, 1e-4), *((gate, SUMS) for gate in gates)]  # theirs is seen before it is turned round
        for index in (1, 2, 3):
            mixed = parts.conv_act(mixed, f"ra{level}_conv{index}")
        refined = mixed + prediction
        answers.append(resized(refined, factor))
        prediction = resized(refined, 2)
    for (got, tolerance), expected in zip(found, maps, strict=True):
        close(got, expected, tolerance)
    for got, name in zip(reversed(answers), ("y0", "y1", "y2", "y3"), strict=True):
        close(got, tensors[name], 1e-4)
