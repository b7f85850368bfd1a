"""Prototypes at the server: sums over counts, class by class."""

import numpy as np
import pytest
from torch import nn

from common.config import load_run_config
from common.errors import AggregationError, ConfigError
from server.strategies.base import Weighted
from server.strategies.fedproto import FedProto


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 3)


def build():
    strategy = FedProto(load_run_config({"strategy.name": "fedproto"}).strategy)
    strategy.meet({"a": 4, "b": 6}, Model())
    return strategy


def told(sums, counts):
    return {"sums": np.array(sums, np.float32), "counts": np.array(counts, np.float32)}


def step(strategy, **sites):
    items = [Weighted(site, {"w": np.ones(2, np.float32)}, 1.0, each) for site, each in sites.items()]
    return strategy.aggregate({"w": np.zeros(2, np.float32)}, items)


def test_prototypes_are_means_over_all_sites_images():
    strategy = build()
    assert strategy.shared() == {}
    step(
        strategy,
        a=told([[2, 0], [3, 3], [0, 0]], [2, 3, 0]),
        b=told([[4, 3], [0, 0], [0, 0]], [1, 0, 0]),
    )
    assert strategy.shared()["prototypes"].tolist() == [[2, 1], [1, 1], [0, 0]]
    assert strategy.shared()["counts"].tolist() == [3, 3, 0]
    step(strategy, b=told([[0, 0], [0, 0], [5, 10]], [0, 0, 5]))
    assert strategy.shared()["prototypes"].tolist() == [[2, 1], [1, 1], [1, 2]], "absent classes keep theirs"
    assert strategy.shared()["counts"].tolist() == [3, 3, 5]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        told(np.zeros((2, 2)), [1, 1]),
        told(np.zeros((3, 4)), [1, 1, 1]),
        told(np.zeros((3, 2)), [1, 1]),
        told(np.zeros((3, 2)), [1, -1, 1]),
        told(np.full((3, 2), np.nan), [1, 1, 1]),
        {**told(np.zeros((3, 2)), [1, 1, 1]), "more": np.zeros(1)},
    ],
)
def test_what_does_not_fit_is_refused(bad):
    with pytest.raises(AggregationError, match=r"'bad'.*told-"):
        step(build(), bad=bad)


@pytest.mark.parametrize("name", ["harmofl", "moon", "fedproto", "fedsr"])
@pytest.mark.parametrize("protection", [{"privacy.mechanism": "gaussian"}, {"secure-aggregation.enabled": True}])
def test_they_are_refused_where_only_sums_are_seen(name, protection):
    needs = {"harmofl": {"model.amplitude": True}, "fedsr": {"model.representation": "gaussian"}}
    with pytest.raises(ConfigError, match=f"{name}.*do not cover"):
        load_run_config({"strategy.name": name, **needs.get(name, {}), **protection})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy.name": "harmofl"}, "'model.amplitude' is not true"),
        ({"model.amplitude": True}, "'model.amplitude' is set"),
        ({"strategy.name": "fedsr"}, "'model.representation' is not 'gaussian'"),
        ({"model.representation": "gaussian"}, "'model.representation' is set"),
        ({"strategy.name": "fedproto", "task.name": "segmentation"}, "one class per image"),
        (
            {"strategy.name": "fedsr", "model.representation": "gaussian", "task.name": "multilabel"},
            "one class per image",
        ),
    ],
)
def test_strategies_and_what_they_need_go_together(changes, said):
    with pytest.raises(ConfigError, match=said):
        load_run_config(changes)
