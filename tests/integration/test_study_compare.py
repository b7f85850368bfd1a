"""`consilium study compare`: two runs on the same patients."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from common.errors import ConfigError
from simulations.cli import app
from simulations.paired import paired_difference
from simulations.results import load_results
from tests.studies import experiment, judged, made_dataset, written

CLASSES = ("a", "b")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("compare")
    path = written(folder / "seen.npz", made_dataset(CLASSES))
    for name, rounds in (("one", 1), ("two", 2)):
        made = experiment(path, task__positive="b", seeds="[1, 2]", protocols="federated,pooled", rounds=rounds)
        judged(made, folder / name)
    return folder / "one", folder / "two"


def test_a_run_is_no_better_than_itself(runs: tuple[Path, Path]) -> None:
    for row in paired_difference(runs[0], runs[0]):
        ends = np.array([row["difference"], row["low"], row["high"]])
        assert not ends[np.isfinite(ends)].any()


def test_values_are_those_of_the_two_tables(runs: tuple[Path, Path]) -> None:
    """Oracle: what each run wrote itself; and turning the two round turns every sign."""
    there = paired_difference(runs[1], runs[0])
    tables = [load_results(run).rows("headline", method="federated") for run in (runs[1], runs[0])]
    values = [{(row["site"], row["metric"]): row["value"] for row in table} for table in tables]
    assert {(row["site"], row["metric"]) for row in there} == set(values[0])
    for row in there:
        left, right = (each[row["site"], row["metric"]] for each in values)
        assert [row["run"], row["baseline"]] == pytest.approx([left, right], nan_ok=True)
        assert row["difference"] == pytest.approx(left - right, nan_ok=True)
    assert any(row["low"] < row["high"] for row in there)
    for row, back in zip(there, paired_difference(runs[0], runs[1]), strict=True):
        ends = [-row["high"], -row["low"]]
        assert [back["low"], back["high"]] == pytest.approx(ends, nan_ok=True)


def test_federated_against_pooled_within_a_run_agrees_with_its_table(runs: tuple[Path, Path]) -> None:
    """A pooled run compared with itself is zero; its values are the pooled rows of the run."""
    rows = paired_difference(runs[0], runs[0], "pooled")
    table = load_results(runs[0]).rows("headline", method="pooled")
    wanted = {(row["site"], row["metric"]): row["value"] for row in table}
    assert {(row["site"], row["metric"]): pytest.approx(row["run"]) for row in rows} == wanted


def test_it_is_written_and_printed(runs: tuple[Path, Path]) -> None:
    command = ["study", "compare", str(runs[1]), str(runs[0])]
    answer = CliRunner().invoke(app, [*command, "--json"])
    assert answer.exit_code == 0, answer.output
    body = json.loads(answer.stdout)
    with Path(body["out"]).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(body["rows"])
    shown = CliRunner().invoke(app, command, env={"COLUMNS": "140"})
    assert shown.exit_code == 0, shown.output
    assert "95 % interval" in shown.stdout


def test_runs_that_do_not_belong_together_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    path = written(tmp_path / "other.npz", made_dataset(CLASSES, seed=1))
    judged(experiment(path, task__positive="b", seeds="[1, 2]", protocols="federated"), tmp_path / "other")
    with pytest.raises(ConfigError, match="other images"):
        paired_difference(tmp_path / "other", runs[0])
    judged(experiment(runs[0].parent / "seen.npz", task__positive="b", protocols="federated"), tmp_path / "one-seed")
    with pytest.raises(ConfigError, match="other seeds"):
        paired_difference(tmp_path / "one-seed", runs[0])
    with pytest.raises(ConfigError, match="has not the protocol 'local'"):
        paired_difference(runs[0], runs[1], "local")
