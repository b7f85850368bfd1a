"""Criss-cross attention by plain loops over places."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from common.attention.criss_cross import CrissCross, cross_scores, on_the_cross


@pytest.mark.parametrize("grid", [(3, 4), (2, 3, 4)])
@torch.no_grad()
def test_equals_a_loop_over_places(grid):
    torch.manual_seed(0)
    layer = CrissCross(8, len(grid), reduction=4)
    layer.scale.gate.fill_(0.7)
    features = torch.randn(2, 8, *grid)
    query, key, value = layer._split(features, None)
    expected = features.clone()
    everywhere = list(itertools.product(*(range(side) for side in grid)))
    for image, place in itertools.product(range(2), everywhere):
        at = (image, slice(None))
        cross = [o for o in everywhere if sum(a != b for a, b in zip(place, o, strict=True)) <= 1]
        weights = F.softmax(torch.stack([query[(*at, *place)] @ key[(*at, *other)] for other in cross]), 0)
        expected[(*at, *place)] += 0.7 * sum(w * value[(*at, *o)] for w, o in zip(weights, cross, strict=True))
    torch.testing.assert_close(layer(features), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(layer.attend(features)[0], expected, atol=1e-6, rtol=1e-5)


def test_a_fresh_layer_changes_nothing():
    features = torch.randn(1, 8, 3, 4)
    assert torch.equal(CrissCross.build(8, (3, 4))(features), features)


def test_the_own_place_counts_once():
    scores = cross_scores(torch.randn(1, 2, 3, 4, 5), torch.randn(1, 2, 3, 4, 5))
    assert (scores.isfinite().sum(-1) == 3 + 4 + 5 - 2).all()
    assert (on_the_cross((3, 4, 5)).sum(-1) == 3 + 4 + 5 - 2).all()


@torch.no_grad()
def test_both_paths_agree_where_something_is_masked():
    torch.manual_seed(0)
    layer = CrissCross(8)
    layer.scale.gate.fill_(1)
    features, mask = torch.randn(2, 8, 5, 4), torch.rand(2, 5, 4) > 0.4
    real = mask[:, None].expand_as(features)
    torch.testing.assert_close(layer(features, mask)[real], layer.attend(features, mask)[0][real])
