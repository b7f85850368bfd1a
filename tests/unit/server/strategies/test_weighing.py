"""Strategies that weigh sites by what they tell: by hand for three sites, and in the cases that reduce to another."""

import numpy as np
import pytest
from scipy.optimize import minimize

from common.config import load_run_config
from common.errors import AggregationError, ConfigError
from server.strategies import STRATEGIES
from server.strategies.afl import onto_simplex
from server.strategies.base import Weighted

SITES = {"a": 10, "b": 30, "c": 60}
UPDATES = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 2.0]), "c": np.array([-1.0, 1.0])}


class Model:
    """Knows that `w` is learnt."""

    def named_parameters(self):
        return [("w", None)]


def build(name, **changes):
    settings = load_run_config(
        {"strategy.name": name, **{f"strategy.{key.replace('_', '-')}": value for key, value in changes.items()}}
    ).strategy
    strategy = STRATEGIES.load(name)(settings)
    strategy.meet(SITES, Model())
    return strategy


def items(told, sites=tuple(SITES)):
    return [
        Weighted(site, {"w": UPDATES[site]}, float(SITES[site]), {key: np.asarray(v[site]) for key, v in told.items()})
        for site in sites
    ]


def step(strategy, told, sites=tuple(SITES)):
    return strategy.aggregate({"w": np.zeros(2)}, items(told, sites))["w"]


FEDAVG = np.array([(10 - 60) / 100, (60 + 60) / 100])


def test_fednova_by_hand():
    """p = .1, .3, .6; steps 1, 2, 4: τ = .1 + .6 + 2.4 = 3.1; Σ p Δ / a = .1 (1, 0) + .15 (0, 2) + .15 (−1, 1)."""
    new = step(build("fednova"), {"steps": {"a": 1.0, "b": 2.0, "c": 4.0}})
    np.testing.assert_allclose(new, 3.1 * np.array([0.1 - 0.15, 0.3 + 0.15]), rtol=1e-12)


def test_fednova_with_equal_steps_is_fedavg():
    np.testing.assert_allclose(step(build("fednova"), {"steps": dict.fromkeys(SITES, 7.0)}), FEDAVG, rtol=1e-12)


def test_qffl_by_hand():
    """q = 2, L = 3, F = 1, 2, 3: powers 1, 4, 9; lengths² 1, 4, 2; 3 Σ F² Δ over Σ 2 F 9 ‖Δ‖² + 3 F²."""
    new = step(build("qffl", fairness=2, smoothness=3), {"loss": {"a": 1.0, "b": 2.0, "c": 3.0}})
    numerator = 3 * (UPDATES["a"] + 4 * UPDATES["b"] + 9 * UPDATES["c"])
    denominator = (2 * 1 * 9 * 1 + 3) + (2 * 2 * 9 * 4 + 12) + (2 * 3 * 9 * 2 + 27)
    np.testing.assert_allclose(new, numerator / denominator, rtol=1e-8)


@pytest.mark.parametrize("smoothness", [0.5, 300.0])
def test_qffl_with_q_of_zero_is_the_mean_of_sites(smoothness):
    new = step(build("qffl", fairness=0, smoothness=smoothness), {"loss": {"a": 0.0, "b": 2.0, "c": 3.0}})
    np.testing.assert_allclose(new, np.mean(list(UPDATES.values()), axis=0), rtol=1e-12)


@pytest.mark.parametrize("name", ["afl", "group-dro"])
def test_without_a_step_sites_count_alike(name):
    strategy = build(name, group_step=0)
    for _ in range(3):
        new = step(strategy, {"loss": {"a": 1.0, "b": 2.0, "c": 3.0}})
    np.testing.assert_allclose(new, np.mean(list(UPDATES.values()), axis=0), rtol=1e-9)


def test_group_dro_by_hand():
    """Two rounds: q ∝ e^(η ΣF); updates count by the new q."""
    strategy = build("group-dro", group_step=0.5)
    step(strategy, {"loss": {"a": 1.0, "b": 2.0, "c": 3.0}})
    new = step(strategy, {"loss": {"a": 0.0, "b": 0.5, "c": 0.0}})
    raised = np.exp(0.5 * np.array([1.0, 2.5, 3.0]))
    q = raised / raised.sum()
    np.testing.assert_allclose([strategy.state[f"q/{site}"] for site in SITES], q, rtol=1e-12)
    np.testing.assert_allclose(new, q @ np.stack(list(UPDATES.values())), rtol=1e-9)


def test_afl_by_hand():
    """1/3 + 0.3 (1, 2, 3) sums to 2.8: the nearest point has 0.6 less in each. Then a weight of zero."""
    strategy = build("afl", group_step=0.3)
    step(strategy, {"loss": {"a": 1.0, "b": 2.0, "c": 3.0}})
    first = np.array([1 / 3 - 0.3, 1 / 3, 1 / 3 + 0.3])
    np.testing.assert_allclose([strategy.state[f"q/{site}"] for site in SITES], first, rtol=1e-12)
    new = step(strategy, {"loss": {"a": 0.0, "b": 0.0, "c": 1.0}})
    # (.0333, .3333, .9333) sums to 1.3: 0.1 off each would leave a negative, so a = 0 and 0.1333 off the others.
    second = np.array([0, 1 / 3 - 2 / 15, 14 / 15 - 2 / 15])
    np.testing.assert_allclose([strategy.state[f"q/{site}"] for site in SITES], second, atol=1e-12)
    np.testing.assert_allclose(new, second @ np.stack(list(UPDATES.values())), rtol=1e-9)


@pytest.mark.parametrize("name", ["afl", "group-dro"])
def test_a_site_that_is_not_in_the_round_keeps_its_weight(name):
    strategy = build(name, group_step=0.3)
    step(strategy, {"loss": {"a": 1.0, "b": 2.0}}, ("a", "b"))
    q = {site: float(strategy.state[f"q/{site}"]) for site in SITES}
    assert q["c"] == pytest.approx(1 / 3)
    assert sum(q.values()) == pytest.approx(1)
    assert q["a"] < 1 / 3 < q["b"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("total", [1.0, 0.4])
def test_the_projection_is_the_nearest_point(seed, total):
    """Against a general optimiser."""
    values = np.random.default_rng(seed).normal(size=5)
    found = onto_simplex(values, total)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(total)
    twin = minimize(
        lambda x: ((x - values) ** 2).sum(),
        np.full(5, total / 5),
        bounds=[(0, None)] * 5,
        constraints={"type": "eq", "fun": lambda x: x.sum() - total},
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(found, twin.x, atol=1e-6)


def test_scaffold_moves_its_variate_by_the_share_of_images_that_took_part():
    """c = Σ n_k/N Δc_k: all three, then b alone with 0.3 of the images."""
    strategy = build("scaffold")
    changes = {"a": np.array([1.0, 1.0]), "b": np.array([0.0, 2.0]), "c": np.array([2.0, 0.0])}

    def round_(sites):
        return strategy.aggregate(
            {"w": np.zeros(2)}, [Weighted(s, {"w": UPDATES[s]}, float(SITES[s]), {"w": changes[s]}) for s in sites]
        )["w"]

    assert strategy.shared() == {}
    np.testing.assert_allclose(round_(SITES), FEDAVG)
    np.testing.assert_allclose(strategy.shared()["w"], [0.1 + 1.2, 0.1 + 0.6])
    round_(["b"])
    np.testing.assert_allclose(strategy.shared()["w"], [1.3, 0.7 + 0.3 * 2])


def test_feddyn_by_hand():
    """α = .05: h = −α Δ̄ first, so the step is 2 Δ̄; then b alone: h −= α · 0.3 · Δ_b and the step Δ_b − h/α."""
    strategy = build("feddyn", dynamic=0.05)
    assert strategy.mu == 0.05
    np.testing.assert_allclose(step(strategy, {}), 2 * FEDAVG)
    np.testing.assert_allclose(step(strategy, {}, ("b",)), UPDATES["b"] + FEDAVG + 0.3 * UPDATES["b"])


def test_feddyn_leaves_buffers_to_the_mean():
    strategy = build("feddyn")
    update = {"w": np.ones(2), "norm.running_mean": np.ones(2)}
    old = {name: np.zeros(2) for name in update}
    new = strategy.aggregate(old, [Weighted("a", update, 100.0)])
    assert new["w"].tolist() == [2, 2]
    assert new["norm.running_mean"].tolist() == [1, 1]
    assert list(strategy.state) == ["h/w"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fednova", {}),
        ("fednova", {"steps": 0.0}),
        ("fednova", {"steps": np.nan}),
        ("fednova", {"steps": np.ones(2)}),
        ("fednova", {"steps": np.array(3)}),
        ("fednova", {"steps": 3.0, "loss": 1.0}),
        ("qffl", {"loss": -0.1}),
        ("afl", {"loss": np.inf}),
        ("group-dro", {"steps": 3.0}),
        ("scaffold", {}),
        ("scaffold", {"w": np.ones(3)}),
        ("scaffold", {"w": np.array([np.nan, 1])}),
        ("feddyn", {"loss": 1.0}),
    ],
)
def test_what_a_site_tells_wrongly_is_refused_by_name(name, told):
    strategy = build(name)
    item = Weighted("bad one", {"w": np.ones(2)}, 1.0, {key: np.asarray(value) for key, value in told.items()})
    with pytest.raises(AggregationError, match=r"bad one.*told-"):
        strategy.aggregate({"w": np.zeros(2)}, [item])
    assert strategy.state == {}


@pytest.mark.parametrize("name", ["scaffold", "fednova", "feddyn", "qffl", "afl", "group-dro"])
@pytest.mark.parametrize("protection", [{"privacy.mechanism": "gaussian"}, {"secure-aggregation.enabled": True}])
def test_they_are_refused_where_only_sums_are_seen(name, protection):
    with pytest.raises(ConfigError, match=f"{name}.*do not cover"):
        load_run_config({"strategy.name": name, **protection})


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "qffl", "afl", "group-dro"])
def test_two_that_weigh_are_refused(name):
    with pytest.raises(ConfigError, match="what each site counts"):
        load_run_config({"strategy.name": name, "strategy.attention-weights": "fair"})
