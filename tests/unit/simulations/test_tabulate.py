"""Tables from verdicts: means, worst site, summaries and paired differences, derived by hand."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from simulations.judging import Case, Court, Verdict
from simulations.protocols import PROTOCOLS, Cast
from simulations.results import ALL_SOURCES, HELD_OUT_MEAN, WORST_SOURCE, make_table
from simulations.tabulate import Tabulator

METRICS = ("auroc", "brier")


class Told:
    """A court that has judged: the value of every case is told, its resamples lie ±0.1 around it."""

    def __init__(self, values: dict[tuple[int, str, str], tuple[float, float]]) -> None:
        self.task = SimpleNamespace(metrics=METRICS)
        self._values = values

    def verdict(self, case: Case) -> Verdict:
        value = np.array(self._values[case.seed, "+".join(case.jury), case.site])
        spread = np.linspace(-0.1, 0.1, 101)
        return Verdict(value, value[:, None] + spread, np.array([10, 20]), np.array([[0.2, 0.1, 5.0], [0.0, 0.0, 0.0]]))


def table(values: dict[Any, Any], protocols: list[str], seeds: tuple[int, ...] = (1,), held: str = "c") -> Tabulator:
    made = Tabulator(cast(Court, Told(values)), Cast(("a", "b"), (held,) if held else (), lambda plan: 0.0), seeds)
    for name in protocols:
        made.add(PROTOCOLS.load(name)())
    return made


FEDERATED = {
    (1, "federated", "a"): (0.9, 0.1),
    (1, "federated", "b"): (0.7, 0.3),
    (1, "federated", "c"): (0.8, 0.2),
}
LOCAL = {
    (1, "local/a", "a"): (0.8, 0.2),
    (1, "local/b", "b"): (0.6, 0.2),
    (1, "local/a", "c"): (0.5, 0.4),
    (1, "local/b", "c"): (0.7, 0.2),
}


def rows(tabulator: Tabulator, **equal: Any) -> list[dict[str, Any]]:
    found = list(tabulator.headline())
    make_table("headline", found)  # the columns are right
    return [row for row in found if all(row[key] == value for key, value in equal.items())]


def test_summaries_are_means_and_the_worst_site_in_the_metrics_own_sense() -> None:
    made = table(FEDERATED, ["federated"])
    value = {(row["site"], row["metric"]): row["value"] for row in rows(made)}
    assert value[ALL_SOURCES, "auroc"] == pytest.approx(0.8)
    assert value[WORST_SOURCE, "auroc"] == pytest.approx(0.7)
    assert value[WORST_SOURCE, "brier"] == pytest.approx(0.3)  # smaller is better, so the worst is the largest
    assert value[HELD_OUT_MEAN, "auroc"] == pytest.approx(0.8)


def test_roles_and_support() -> None:
    made = table(FEDERATED, ["federated"])
    assert {row["site"]: row["role"] for row in rows(made)}["c"] == "held-out"
    assert {row["site"]: row["role"] for row in rows(made)}["a"] == "in"
    (row,) = rows(made, site=ALL_SOURCES, metric="brier")
    assert row["n"] == 40


def test_local_at_a_held_out_site_is_the_mean_over_the_local_models() -> None:
    (row,) = rows(table(LOCAL, ["local"]), site="c", metric="auroc")
    assert row["value"] == pytest.approx(0.6)


def test_intervals_are_percentiles_of_the_resamples() -> None:
    (row,) = rows(table(FEDERATED, ["federated"]), site="a", metric="auroc")
    assert (row["low"], row["high"]) == pytest.approx((0.9 - 0.095, 0.9 + 0.095))


def test_differences_are_paired_so_equal_resamples_leave_no_width() -> None:
    made = table(FEDERATED | LOCAL, ["federated", "local"])
    found = {(row["site"], row["metric"]): row for row in made.differences()}
    make_table("differences", list(made.differences()))
    row = found["a", "auroc"]
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.1, 0.1, 0.1))
    assert found["c", "auroc"]["difference"] == pytest.approx(0.2)
    assert row["baseline"] == "local only"


def test_seeds_are_averaged_and_their_spread_is_told() -> None:
    values = FEDERATED | {(2, *key[1:]): (value[0] - 0.2, value[1]) for key, value in FEDERATED.items()}
    (row,) = rows(table(values, ["federated"], seeds=(1, 2)), site="a", metric="auroc")
    assert row["value"] == pytest.approx(0.8)
    assert row["seed_sd"] == pytest.approx(0.2 / np.sqrt(2))
    assert row["seeds"] == 2
    assert row["high"] - row["low"] > 0.2  # wider than one seed's patients alone


def test_a_site_where_the_metric_is_undefined_does_not_spoil_the_mean() -> None:
    values = FEDERATED | {(1, "federated", "b"): (float("nan"), 0.3)}
    made = table(values, ["federated"])
    (mean,) = rows(made, site=ALL_SOURCES, metric="auroc")
    (worst,) = rows(made, site=WORST_SOURCE, metric="auroc")
    assert mean["value"] == worst["value"] == pytest.approx(0.9)
    assert mean["n"] == 10
    (own,) = rows(made, site="b", metric="auroc")
    assert np.isnan(own["value"])
    assert np.isnan(own["low"])


def test_a_left_out_site_counts_as_held_out_for_that_method_and_is_not_compared_with_training_on_it() -> None:
    values = FEDERATED | {(1, "without/a", "a"): (0.75, 0.2), (1, "without/b", "b"): (0.65, 0.2)}
    made = table(values, ["federated", "leave-one-site-out"])
    assert {row["role"] for row in rows(made, method="leave one site out")} == {"held-out"}
    assert not [row for row in made.differences() if row["baseline"] == "leave one site out"]


def test_the_matrix_holds_every_pair_and_the_references() -> None:
    values = FEDERATED | {
        (1, f"local/{trained}", judged): (0.5, 0.5) for trained in ("a", "b") for judged in ("a", "b", "c")
    }
    found = list(table(values, []).matrix(["federated"]))
    make_table("matrix", found)
    assert {(row["trained_on"], row["judged_on"]) for row in found} == {
        (trained, judged) for trained in ("a", "b", "federated") for judged in ("a", "b", "c")
    }


def test_calibration_leaves_out_empty_bins() -> None:
    found = list(table(FEDERATED, []).calibration(PROTOCOLS.load("federated")()))
    make_table("calibration", found)
    assert [row["bin"] for row in found] == [0, 0, 0]
    assert found[0]["count"] == 5


def test_the_worst_source_is_one_site_and_its_value_lies_in_its_interval() -> None:
    """Two seeds that disagree about which site is worst: the mean of the two minima would be 0.5, at no site."""
    values = {
        (1, "federated", "a"): (0.9, 0.1),
        (1, "federated", "b"): (0.5, 0.1),
        (2, "federated", "a"): (0.5, 0.1),
        (2, "federated", "b"): (0.8, 0.1),
    }
    (row,) = rows(table(values, ["federated"], seeds=(1, 2), held=""), site=WORST_SOURCE, metric="auroc")
    assert row["value"] == pytest.approx(0.65)
    assert row["low"] <= row["value"] <= row["high"]
    assert row["seed_sd"] == pytest.approx(0.3 / np.sqrt(2))
    assert row["n"] == 10


def test_the_seeds_of_a_resample_are_the_same_at_every_site() -> None:
    """A seed that is bad everywhere is bad for the mean too: averaging over sites must not average it away."""
    values = {(seed, "federated", site): (0.9 - 0.4 * (seed == 2), 0.1) for seed in (1, 2) for site in ("a", "b")}
    made = table(values, ["federated"], seeds=(1, 2), held="")
    (alone,) = rows(made, site="a", metric="auroc")
    (mean,) = rows(made, site=ALL_SOURCES, metric="auroc")
    assert (mean["low"], mean["high"]) == pytest.approx((alone["low"], alone["high"]))
