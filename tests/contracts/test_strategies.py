"""What every strategy of STRATEGIES promises, and what the adaptive ones compute."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from common.arrays import read_arrays, write_arrays
from common.config import StrategySection, load_run_config
from common.errors import AggregationError, ConfigError
from server.strategies import STRATEGIES
from server.strategies.base import Weighted, weighted_mean
from tests.federations import same_arrays

PERSONAL = ("fedbn", "fedattnnorm", "fedper", "silobn", "fedrep", "ditto", "mr-mtl", "apfl")
AT_SITES = ("scaffold", "fednova", "afl", "group-dro", "harmofl", "moon", "fedproto", "fedsr")
PLAIN = ("fedavg", "fedprox", *PERSONAL, *AT_SITES)
ADAPTIVE = ("fedadam", "fedyogi", "fedadagrad")
STRETCHED = ("fedexp",)
MOVED = ("feddyn", "qffl")
"""Their step is neither the mean nor its multiple for every number of sites; tests/unit/server/strategies has them."""
NEEDS = {
    "fedattnnorm": {"model.personal-attention": True},
    "harmofl": {"model.amplitude": True},
    "fedsr": {"model.representation": "gaussian"},
}
"""What the settings of a strategy have to say besides its name."""
TOLD = {
    "scaffold": lambda update: {key: array / 2 for key, array in update.items()},
    "fednova": lambda update: {"steps": np.array(3.0)},
    "qffl": lambda update: {"loss": np.array(0.7)},
    "afl": lambda update: {"loss": np.array(0.7)},
    "group-dro": lambda update: {"loss": np.array(0.7)},
    "fedproto": lambda update: {"sums": np.ones((2, 3), np.float32), "counts": np.array([2.0, 0.0], np.float32)},
}
"""What the sites of a strategy tell beside an update."""


def settings(name: str, **changes: float) -> StrategySection:
    values = {"strategy.name": name, **NEEDS.get(name, {})}
    return load_run_config({**values, **{f"strategy.{k}": v for k, v in changes.items()}}).strategy


def build(name, **changes):
    return STRATEGIES.load(name)(settings(name, **changes))


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "conv.weight": rng.normal(size=(3, 2, 2)).astype(np.float32),
        "norm.steps": np.array(17, np.int64),  # no axes, as BatchNorm's counter
        "head.bias": rng.normal(size=4).astype(np.float32),
    }


def telling(name, items):
    """Let sites tell what the strategy asks for."""
    return [replace(item, told=TOLD[name](item.update) if name in TOLD else {}) for item in items]


def updates(count=4, seed=1, size=0.1):
    rng = np.random.default_rng(seed)
    return [
        Weighted(
            site=f"site-{index}",
            update={
                "conv.weight": rng.normal(scale=size, size=(3, 2, 2)).astype(np.float32),
                "head.bias": rng.normal(scale=size, size=4).astype(np.float32),
            },
            weight=float(rng.integers(1, 200)),
        )
        for index in range(count)
    ]


@pytest.fixture(params=sorted(STRATEGIES))
def name(request):
    return request.param


def test_the_lists_here_cover_the_table():
    assert {*PLAIN, *ADAPTIVE, *STRETCHED, *MOVED} == set(STRATEGIES)


@pytest.mark.parametrize("name", [*PLAIN, *STRETCHED])
def test_one_site_is_the_identity(name):
    old, [only] = arrays(), telling(name, updates(1))
    new = build(name).aggregate(old, [only])
    for key, update in only.update.items():
        np.testing.assert_array_equal(new[key], old[key] + update)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_equal_updates_give_that_update(name, count):
    """The weights sum to one up to the last bits of float64, which float32 does not see."""
    old, [one] = arrays(), updates(1)
    same = [Weighted(site=f"s{index}", update=one.update, weight=3.0 + index) for index in range(count)]
    new = build(name).aggregate(old, telling(name, same))
    for key, update in one.update.items():
        np.testing.assert_allclose(new[key], old[key] + update, rtol=2e-7)


def test_order_of_replies_changes_nothing(name):
    """In float64, whose sums show the order of addition in their last bits; float32 would round it away."""
    old = {key: array.astype(np.float64) for key, array in arrays().items() if key != "norm.steps"}
    some = [
        replace(
            item, update={key: array.astype(np.float64) * 10.0 ** (3 * place) for key, array in item.update.items()}
        )
        for place, item in enumerate(updates(5))
    ]
    some = telling(name, some)
    first = build(name).aggregate(old, some)
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        assert same_arrays(build(name).aggregate(old, [some[index] for index in order]), first)


def test_twice_the_same_is_the_same_to_the_bit(name):
    runs = []
    for _ in range(2):
        strategy, current = build(name), arrays()
        for round_ in range(4):
            current = strategy.aggregate(current, telling(name, updates(3, seed=round_)))
        runs.append((current, strategy.state))
    assert same_arrays(runs[0][0], runs[1][0])
    assert same_arrays(runs[0][1], runs[1][1])


def test_names_dtypes_and_order_stay_and_nothing_is_changed_in_place(name):
    old, some = arrays(), telling(name, updates())
    copies = {key: array.copy() for key, array in old.items()}
    sent = [{key: array.copy() for key, array in item.update.items()} for item in some]
    new = build(name).aggregate(old, some)
    assert list(new) == list(old)
    assert [(array.dtype, array.shape) for array in new.values()] == [(a.dtype, a.shape) for a in old.values()]
    assert same_arrays(old, copies)
    assert all(same_arrays(item.update, before) for item, before in zip(some, sent, strict=True))


def test_integer_buffers_stay(name):
    new = build(name).aggregate(arrays(), telling(name, updates()))
    assert new["norm.steps"] == 17
    assert new["norm.steps"].dtype == np.int64


def spoilt(problem):
    [good, bad] = updates(2)
    update, weight = dict(bad.update), bad.weight
    if problem == "nan":
        update["head.bias"] = np.array([0, np.nan, 0, 0], np.float32)
    elif problem == "infinite":
        update["head.bias"] = np.array([0, np.inf, 0, 0], np.float32)
    elif problem == "shape":
        update["head.bias"] = np.zeros((4, 1), np.float32)
    elif problem == "missing":
        del update["head.bias"]
    elif problem == "surplus":
        update["other"] = np.zeros(1, np.float32)
    elif problem == "integer buffer":
        update["norm.steps"] = np.array(1, np.int64)
    elif problem == "dtype":
        update["head.bias"] = update["head.bias"].astype(np.float64)
    else:
        weight = {"zero weight": 0.0, "negative weight": -1.0, "weight nan": math.nan, "weight infinite": math.inf}[
            problem
        ]
    return [good, Weighted(site="bad one", update=update, weight=weight)]


@pytest.mark.parametrize(
    "problem",
    [
        "nan",
        "infinite",
        "shape",
        "missing",
        "surplus",
        "integer buffer",
        "dtype",
        "zero weight",
        "negative weight",
        "weight nan",
        "weight infinite",
    ],
)
def test_bad_replies_are_refused_by_name(name, problem):
    strategy = build(name)
    with pytest.raises(AggregationError, match="bad one"):
        strategy.aggregate(arrays(), telling(name, spoilt(problem)))
    assert strategy.state == {}


def test_no_reply_is_refused(name):
    with pytest.raises(AggregationError, match="no update"):
        build(name).aggregate(arrays(), [])


@pytest.mark.parametrize(
    ("name", "size"),
    # qffl divides by lengths of updates.
    [(name, 3e38) for name in sorted(STRATEGIES) if name != "qffl"] + [(name, 1e25) for name in ADAPTIVE],
)
def test_what_overflows_is_refused(name, size):
    """Two finite steps of 3e38 leave float32; a square of 1e25 already does. Nothing infinite may become the model."""
    strategy = build(name)
    update = {"conv.weight": np.zeros((3, 2, 2), np.float32), "head.bias": np.full(4, size, np.float32)}

    def train_three_rounds():
        current = arrays()
        for _ in range(3):
            current = strategy.aggregate(current, telling(name, [Weighted("a", update, 1.0)]))

    with pytest.raises(AggregationError, match="overflow"):
        train_three_rounds()


def test_state_survives_saving(name, tmp_path):
    straight, current = build(name), arrays()
    for round_ in range(5):
        current = straight.aggregate(current, telling(name, updates(3, seed=round_)))
    other = arrays()
    for round_ in range(5):
        resumed = build(name)
        if round_:
            other, _ = read_arrays(tmp_path / "arrays")
            resumed.state, _ = read_arrays(tmp_path / "state")
        other = resumed.aggregate(other, telling(name, updates(3, seed=round_)))
        write_arrays(tmp_path / "arrays", other, {})
        write_arrays(tmp_path / "state", resumed.state, {})
    assert all(other[key].tobytes() == current[key].tobytes() for key in current)
    assert all(resumed.state[key].tobytes() == straight.state[key].tobytes() for key in straight.state)


def test_only_fedprox_and_feddyn_have_a_proximal_term():
    terms = {"fedprox": 0.5, "feddyn": 0.25}
    assert {name: build(name, mu=0.5, dynamic=0.25).mu for name in STRATEGIES} == {
        name: terms.get(name, 0.0) for name in STRATEGIES
    }


class Twin:
    """Reddi et al. 2021, algorithm 2, one number at a time in Python floats."""

    def __init__(self, kind, eta, beta1, beta2, tau, start):
        self.kind, self.eta, self.beta1, self.beta2, self.tau = kind, eta, beta1, beta2, tau
        self.x, self.m, self.v = list(start), [0.0] * len(start), [tau**2] * len(start)

    def step(self, delta):
        for i, d in enumerate(delta):
            self.m[i] = self.beta1 * self.m[i] + (1 - self.beta1) * d
            if self.kind == "fedyogi":
                sign = (self.v[i] > d * d) - (self.v[i] < d * d)
                self.v[i] = self.v[i] - (1 - self.beta2) * d * d * sign
            elif self.kind == "fedadagrad":
                self.v[i] = self.v[i] + d * d
            else:
                self.v[i] = self.beta2 * self.v[i] + (1 - self.beta2) * d * d
            self.x[i] = self.x[i] + self.eta * self.m[i] / (math.sqrt(self.v[i]) + self.tau)


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize(
    ("eta", "beta1", "beta2", "tau"), [(0.1, 0.9, 0.99, 1e-3), (0.01, 0.0, 0.5, 0.1), (1.0, 0.7, 0.0, 1e-2)]
)
def test_adaptive_strategies_equal_a_slow_twin(name, eta, beta1, beta2, tau):
    """In float64, so that both round alike; the update is the weighted mean of two sites."""
    rng = np.random.default_rng(3)
    current = {"w": rng.normal(size=6)}
    strategy = build(name, **{"server-learning-rate": eta, "beta1": beta1, "beta2": beta2, "tau": tau})
    twin = Twin(name, eta, beta1, beta2, tau, current["w"].tolist())
    for _ in range(6):
        first, second = rng.normal(scale=0.2, size=(2, 6))
        current = strategy.aggregate(current, [Weighted("a", {"w": first}, 3.0), Weighted("b", {"w": second}, 1.0)])
        twin.step((0.75 * first + 0.25 * second).tolist())
    np.testing.assert_allclose(current["w"], twin.x, rtol=1e-12)
    np.testing.assert_allclose(strategy.state["v/w"], twin.v, rtol=1e-12)


def test_adam_and_yogi_first_step_by_hand():
    """Δ = 0.3, β₁ = 0.9, β₂ = 0.99, τ = 0.1: m = 0.03; both v: Adam 0.99·0.01 + 0.01·0.09 = 0.0108,
    Yogi 0.01 + 0.01·0.09 = 0.0109, because v < Δ². Step 1·0.03 / (√v + 0.1)."""
    for name, v in (("fedadam", 0.0108), ("fedyogi", 0.0109)):
        strategy = build(name, **{"server-learning-rate": 1.0, "beta1": 0.9, "beta2": 0.99, "tau": 0.1})
        new = strategy.aggregate({"w": np.zeros(1)}, [Weighted("a", {"w": np.array([0.3])}, 1.0)])
        assert new["w"][0] == pytest.approx(0.03 / (math.sqrt(v) + 0.1), rel=1e-12)


def test_a_step_is_stretched_as_far_as_updates_lie_apart():
    """Four unit vectors at right angles: the mean's square is 1/4, so η = 1 / (2·(1/4 + 0.001))."""
    apart = [Weighted(f"s{n}", {"w": np.eye(4)[n]}, 5.0) for n in range(4)]
    new = build("fedexp").aggregate({"w": np.zeros(4)}, apart)
    np.testing.assert_allclose(new["w"], 0.25 / (2 * 0.251), rtol=1e-12)
    agreed = [Weighted(f"s{n}", {"w": np.ones(4)}, n + 1.0) for n in range(4)]
    np.testing.assert_array_equal(build("fedexp").aggregate({"w": np.zeros(4)}, agreed)["w"], np.ones(4))
    # Weights 3 and 1 of lengths 1 and 2 at right angles: 3/4·1 + 1/4·4 = 7/4 over twice (9 + 4)/16 + 0.001.
    two = [Weighted("a", {"w": np.array([1.0, 0.0])}, 3.0), Weighted("b", {"w": np.array([0.0, 2.0])}, 1.0)]
    stretch = 1.75 / (2 * (13 / 16 + 0.001))
    np.testing.assert_allclose(build("fedexp").aggregate({"w": np.zeros(2)}, two)["w"], [0.75 * stretch, 0.5 * stretch])


@pytest.mark.parametrize("name", ["fedexp", "fedbn"])
def test_what_needs_single_sites_is_refused_where_only_sums_are_seen(name):
    with pytest.raises(ConfigError, match="fedadagrad"):
        load_run_config({"strategy.name": name, "secure-aggregation.enabled": True})


finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)
BUSY = hypothesis_settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
sites = st.lists(st.tuples(st.lists(finite, min_size=3, max_size=3), st.integers(1, 10**6)), min_size=1, max_size=6)


@BUSY
@given(sites)
def test_weighted_mean_equals_fractions(rows):
    """Exact rational arithmetic as oracle; the mean of float32 is rounded once, to the nearest."""
    from fractions import Fraction

    items = [
        Weighted(f"s{index}", {"w": np.array(values, np.float32)}, float(weight))
        for index, (values, weight) in enumerate(rows)
    ]
    total = sum(weight for _, weight in rows)
    expected = [float(sum(Fraction(values[i]) * weight for values, weight in rows) / total) for i in range(3)]
    largest = max(abs(value) for values, _ in rows for value in values)
    np.testing.assert_allclose(weighted_mean(items)["w"], expected, rtol=1.2e-7, atol=1e-12 * (1 + largest))


@BUSY
@given(sites, st.integers(1, 1000))
def test_weights_count_by_their_ratio_and_the_mean_stays_between(rows, factor):
    def mean(scale):
        return weighted_mean(
            [
                Weighted(f"s{index}", {"w": np.array(values)}, float(weight * scale))
                for index, (values, weight) in enumerate(rows)
            ]
        )["w"]

    one = mean(1)
    values = np.array([values for values, _ in rows])
    np.testing.assert_allclose(mean(factor), one, rtol=1e-12, atol=1e-9)
    assert (one >= values.min(0) - 1e-9).all()
    assert (one <= values.max(0) + 1e-9).all()
