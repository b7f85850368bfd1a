"""Attention-based pooling against the answers of the authors' network (docs/reference/attention.md has the mapping)."""

import pytest
from torch import nn

from common.attention.bag_attention import BagAttention, GatedBagAttention
from tests.golden.reference import Reference, check


class Slides(nn.Module):
    """Their network of 28 x 28 instances around our pooling: bag [1, K, 1, 28, 28] -> probability of the bag."""

    def __init__(self, pooling):
        super().__init__()
        self.images = nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.instances = nn.Sequential(nn.Linear(800, 500), nn.ReLU())
        self.pooling = pooling
        self.head = nn.Linear(500, 1)

    def answer(self, bags):
        instances = self.instances(self.images(bags.flatten(0, 1)).flatten(1)).unflatten(0, bags.shape[:2])
        summary, weights = self.pooling.attend(instances)
        likely = self.head(summary).sigmoid()
        gate = () if self.pooling.gate is None else (self.pooling.gate(instances),)
        return (likely, (likely >= 0.5).float(), weights), (*gate, weights, likely)


SHARED = {
    "images.0": "feature_extractor_part1.0",
    "images.3": "feature_extractor_part1.3",
    "instances.0": "feature_extractor_part2.0",
    "head": "classifier.0",
}
REFERENCES = {
    "abmil": Reference(
        lambda sizes: Slides(BagAttention(500, score_bias=True)),
        {**SHARED, "pooling.content.0": "attention.0", "pooling.score": "attention.2"},
        answer=lambda model, bags: model.answer(bags),
    ),
    "abmil_gated": Reference(
        lambda sizes: Slides(GatedBagAttention(500, score_bias=True)),
        {
            **SHARED,
            "pooling.content.0": "attention_V.0",
            "pooling.gate.0": "attention_U.0",
            "pooling.score": "attention_w",
        },
        answer=lambda model, bags: model.answer(bags),
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_published_answers(name):
    check(name, REFERENCES[name])


def test_the_gated_network_has_as_many_parameters():
    count = sum(p.numel() for p in Slides(GatedBagAttention(500, score_bias=True)).parameters())
    assert count == 554_956  # measured on the authors' network
