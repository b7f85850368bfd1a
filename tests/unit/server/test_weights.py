"""Attention-aware weights: by hand, and what they must never do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.attention.schema import schema_of
from common.attention.signature import Signature
from common.config import load_run_config
from common.models.build import build_model
from server.strategies.base import Weighted
from server.weights import LEAST, MOST, distance_to_others, factors, weighed

MODEL = build_model(load_run_config({"model.width": 4}).model, 1, 1, 32, seed=0)
SCHEMA = schema_of(MODEL)
SIZE = SCHEMA.blocks[0].size


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
    """Three sites of 10 patients move 0, 0 and m of one histogram's mass. The others of a hold m/2 on average, those of
    c nothing: d = (D/2, D/2, D), the median is D/2, and the ratios are 1, 1 and 2.

    robust: e^(1 − 1) = 1, 1, e^(1 − 4) = 0.0498, cut to 0.5. fair: e^0 = 1, 1, e^(1/2) = 1.6487.
    """
    sites = {"a": signature(0.0), "b": signature(0.0), "c": signature(0.2)}
    far = [distance_to_others(site, sites, SCHEMA) for site in sites]
    assert far == pytest.approx([far[2] / 2, far[2] / 2, far[2]], rel=1e-9)
    assert list(factors(sites, SCHEMA, "robust").values()) == pytest.approx([1, 1, 0.5], rel=1e-9)
    assert list(factors(sites, SCHEMA, "fair").values()) == pytest.approx([1, 1, math.exp(0.5)], rel=1e-9)


def test_the_formula_between_the_cuts():
    far = {site: distance_to_others(site, FAR, SCHEMA) for site in FAR}
    middle = sorted(far.values())[1]
    robust, fair = factors(FAR, SCHEMA, "robust"), factors(FAR, SCHEMA, "fair")
    for site, d in far.items():
        wanted = math.exp(-((d / middle) ** 2)) / math.exp(-1), math.exp(d / (2 * middle)) / math.exp(1 / 2)
        assert (robust[site], fair[site]) == pytest.approx(tuple(min(MOST, max(LEAST, each)) for each in wanted))
    assert LEAST < robust["b"] < MOST
    assert robust["a"] == fair["a"] == 1.0  # in the middle


def test_the_outlier_counts_less_or_more():
    robust, fair = factors(FAR, SCHEMA, "robust"), factors(FAR, SCHEMA, "fair")
    assert robust["c"] < robust["a"] < robust["b"]
    assert fair["c"] > fair["a"] > fair["b"]


shifts = st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 500)), min_size=3, max_size=8)


@given(shifts, st.randoms())
def test_factors_are_cut_follow_the_distance_and_know_no_order(rows, chance):
    sites = {f"s{index}": signature(shift / SIZE, patients) for index, (shift, patients) in enumerate(rows)}
    shuffled = dict(chance.sample(list(sites.items()), len(sites)))
    ordered = sorted(sites, key=lambda site: distance_to_others(site, sites, SCHEMA))
    for mode, step in (("robust", -1), ("fair", 1)):
        found = factors(sites, SCHEMA, mode)
        values = [found[site] for site in ordered][::step]
        assert values == sorted(values)
        assert LEAST <= values[0] <= 1 <= values[-1] <= MOST
        assert factors(shuffled, SCHEMA, mode) == found


def test_projected_signatures_are_compared_by_their_means():
    """Their blocks are mixed, so that ADD-W is not defined; three points on a line by hand."""
    model = build_model(load_run_config({"model.name": "cbam-resnet"}).model, 1, 1, 32, seed=0)
    schema = schema_of(model, depths=20, cap=100)
    assert schema.projected
    at = {"a": 0.0, "b": 0.3, "c": 0.9}
    line = np.eye(schema.length)[0]
    sites = {site: Signature(schema.id, 10, 10 * x * line, 10 * x**2 * line) for site, x in at.items()}
    found = {site: distance_to_others(site, sites, schema) for site in sites}
    assert found == pytest.approx({"a": 0.6, "b": 0.15, "c": 0.75})
    assert factors(sites, schema, "fair") == pytest.approx(
        {"a": 1.0, "b": math.exp((0.15 / 0.6 - 1) / 2), "c": math.exp((0.75 / 0.6 - 1) / 2)}
    )


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
