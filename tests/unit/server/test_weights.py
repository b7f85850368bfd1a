"""Attention-aware weights: by hand, and what they must never do."""

import math

import numpy as np
import pytest

from common.attention.schema import schema_of
from common.attention.signature import Signature
from common.config import load_run_config
from common.models.build import build_model
from server.strategies.base import Weighted
from server.weights import LEAST, MOST, distance_to_others, factors, weighed

MODEL = build_model(load_run_config({"model.width": 4}).model, 1, 1, 32, seed=0)
SCHEMA = schema_of(MODEL)


def signature(shift=0.0, patients=10, entry=0):
    """A legal mean: histograms stay histograms, since mass only moves between two bins of one block."""
    mean = np.zeros(SCHEMA.length)
    for block in SCHEMA.blocks:
        part = np.full(block.size, 1 / block.size if block.kind in ("histogram", "map") else 0.5)
        if block is SCHEMA.blocks[entry]:
            part[0], part[-1] = part[0] + shift / 2, part[-1] - shift / 2
        mean[block.start : block.start + block.size] = part * block.scale
    return Signature(SCHEMA.id, patients, mean * patients, mean**2 * patients)


FAR = {"a": signature(0.0), "b": signature(0.02), "c": signature(0.2)}


def test_by_hand():
    far = {site: distance_to_others(site, FAR, SCHEMA) for site in FAR}
    middle = sorted(far.values())[1]
    robust, fair = factors(FAR, SCHEMA, "robust"), factors(FAR, SCHEMA, "fair")
    for site, d in far.items():
        assert robust[site] == pytest.approx(max(LEAST, math.exp(-((d / middle) ** 2))))
        assert fair[site] == pytest.approx(min(MOST, math.exp(d / (2 * middle))))


def test_the_outlier_counts_less_or_more():
    robust, fair = factors(FAR, SCHEMA, "robust"), factors(FAR, SCHEMA, "fair")
    assert robust["c"] == min(robust.values()) < robust["b"]
    assert fair["c"] == max(fair.values()) > fair["a"]
    for found in (robust, fair):
        assert all(LEAST <= value <= MOST for value in found.values())


@pytest.mark.parametrize("mode", ["none", "robust", "fair"])
def test_equal_attention_counts_alike_in_any_order(mode):
    same = {"a": signature(0.1), "b": signature(0.1), "c": signature(0.1)}
    assert set(factors(same, SCHEMA, mode).values()) == {1.0}
    forward = factors(FAR, SCHEMA, mode)
    assert factors(dict(reversed(FAR.items())), SCHEMA, mode) == forward


def test_none_and_few_sites_change_nothing():
    assert set(factors(FAR, SCHEMA, "none").values()) == {1.0}
    assert set(factors({"a": FAR["a"], "c": FAR["c"]}, SCHEMA, "robust").values()) == {1.0}
    assert factors({}, SCHEMA, "fair") == {}


def test_weights_are_multiplied_and_unmeasured_sites_keep_theirs():
    updates = [Weighted("a", {}, 30.0), Weighted("z", {}, 7.0)]
    found = weighed(updates, {"a": 0.5})
    assert [(item.site, item.weight) for item in found] == [("a", 15.0), ("z", 7.0)]
    assert updates[0].weight == 30.0
