"""`consilium study drop`: local models judged everywhere, their losses related to distances and baselines."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from common.metrics.base import Classified
from simulations.cli import app
from simulations.drop import PREDICTORS, baselines, study_drop
from simulations.results import load_results
from tests.studies import HOSPITALS, experiment, judged, made_dataset, written

CLASSES = ("a", "b")


def classifier(confidence: list[float], labels: list[int]) -> Classified:
    rows = np.array(confidence)[:, None]
    return Classified(rows, np.array(labels), np.arange(len(labels)).astype(str))


def test_baselines_by_hand() -> None:
    """At home one of four is wrong: the threshold is the first quartile of .6 .7 .8 .9 = .675; away two lie below."""
    home = classifier([0.6, 0.7, 0.8, 0.9], [0, 1, 1, 1])
    away = classifier([0.5, 0.6, 0.9, 1.0], [0, 0, 0, 0])
    found = baselines(home, away)
    assert found["atc"] == pytest.approx(0.5 - 0.25)
    assert found["confidence"] == pytest.approx(0.0)
    entropy = [-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in (0.6, 0.7, 0.8, 0.9)]
    distant = [np.log(2), entropy[0], entropy[3], 0]
    assert found["entropy"] == pytest.approx(np.mean(distant) - np.mean(entropy), abs=1e-9)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drop")
    path = written(folder / "seen.npz", made_dataset(CLASSES))
    made = experiment(path, task__positive="b", seeds="[1, 2]", protocols="federated,local,matrix")
    judged(made, folder / "run")
    return folder / "run"


def test_the_drop_is_that_of_the_matrix(run: Path) -> None:
    """Oracle: the table that the run itself wrote, also a mean over seeds."""
    found = study_drop(run)
    results = load_results(run)
    table = {(row["trained_on"], row["judged_on"]): row["value"] for row in results.rows("matrix", metric=found.metric)}
    assert len(found.dyads) == len(HOSPITALS) * (len(HOSPITALS) - 1)
    for row in found.dyads:
        home = table[row["trained_on"], row["trained_on"]]
        assert row["drop"] == pytest.approx(home - table[row["trained_on"], row["judged_on"]])
    assert {row["predictor"] for row in found.relations} == set(PREDICTORS)


def test_everything_is_written_and_printed(run: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["study", "drop", str(run), "--out", str(tmp_path / "out"), "--json"])
    assert answer.exit_code == 0, answer.output
    assert len(json.loads(answer.stdout)["relations"]) == len(PREDICTORS)
    with (tmp_path / "out" / "relations.csv").open(newline="") as file:
        assert {row["predictor"] for row in csv.DictReader(file)} == set(PREDICTORS)
    assert (tmp_path / "out" / "drop.png").read_bytes().startswith(b"\x89PNG")
    shown = CliRunner().invoke(app, ["study", "drop", str(run)], env={"COLUMNS": "140"})
    assert shown.exit_code == 0, shown.output
    assert "feature_frechet" in shown.stdout


def test_a_run_without_local_models_is_told_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path / "seen.npz", made_dataset(CLASSES))
    judged(experiment(path, task__positive="b", protocols="federated"), tmp_path / "run")
    answer = CliRunner().invoke(app, ["study", "drop", str(tmp_path / "run")])
    assert answer.exit_code != 0
    assert "'local' among its protocols" in answer.stderr
