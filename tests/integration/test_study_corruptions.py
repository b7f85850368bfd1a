"""`consilium study corruptions`: the clean value is the run's own, harm and stability are measured, all is written."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from simulations.cli import app
from simulations.corruptions.corrupt import of_modality
from simulations.results import load_results
from simulations.robustness import FLOOR, Robustness, averaged, study_corruptions
from tests.studies import experiment, judged, made_dataset, written


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corruptions")
    path = written(folder / "seen.npz", made_dataset(("a", "b")))
    judged(experiment(path, task__positive="b", seeds="[1, 2]", protocols="federated"), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def found(run: Path) -> Robustness:
    return study_corruptions(run, "ct")


def test_the_clean_value_is_that_of_the_run(run: Path, found: Robustness) -> None:
    rows = load_results(run).rows("matrix", metric=found.metric) or []
    headline = load_results(run).rows("headline", method="federated", metric=found.metric)
    single = [row["value"] for row in headline if not row["site"].startswith(("all", "worst", "held-out"))]
    assert not rows
    assert found.clean == pytest.approx(float(np.mean(single)), abs=1e-9)


def test_every_corruption_of_the_modality_has_five_severities_and_a_floor(found: Robustness) -> None:
    assert [row["corruption"] for row in found.rows if row["severity"] == 3] == of_modality("ct")
    assert len(found.rows) == 5 * len(of_modality("ct")) + 1
    [floor] = [row for row in found.rows if row["corruption"] == FLOOR]
    worst = {name: min(row[name] for row in found.rows) for name in ("as_js", "as_top")}
    assert worst["as_js"] < floor["as_js"] <= 1
    for row in found.rows:
        assert row["drop"] == pytest.approx(row["clean"] - row["value"])
        assert row["moved_alone"] + row["flipped"] <= 1 + 1e-9
        assert row["flipped_alone"] <= row["flipped"] + 1e-9
    for row in found.summary:
        own = [each["drop"] for each in found.rows if each["corruption"] == row["corruption"]]
        assert row["drop"] == pytest.approx(np.mean(own))
        assert row["relative_robustness"] == pytest.approx(1 - np.mean(own) / (found.clean - 0.5))


def test_everything_is_written_and_printed(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = CliRunner().invoke(
        app, ["study", "corruptions", str(run), "--modality", "ct", "--out", str(out), "--json"]
    )
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    with (out / "summary.csv").open(newline="") as file:
        assert [row["corruption"] for row in csv.DictReader(file)] == [row["corruption"] for row in said["summary"]]
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")
    people = CliRunner().invoke(app, ["study", "corruptions", str(run), "--modality", "ct", "--out", str(out)])
    assert "flipped alone" in people.output


def test_a_site_without_a_metric_is_left_out_of_it_and_stays_in_the_rest() -> None:
    common = {"corruption": "ring", "severity": 2}
    rows = [
        {**common, "value": 0.8, "clean": 0.9, "drop": 0.1, "flipped": 0.2},
        {**common, "value": np.nan, "clean": np.nan, "drop": np.nan, "flipped": 0.4},
        {**common, "value": 0.6, "clean": 0.9, "drop": 0.3, "flipped": 0.6},
    ]
    found = averaged(rows)
    assert (found["corruption"], found["severity"], found["defined"]) == ("ring", 2, 2)
    assert [found[key] for key in ("value", "clean", "drop", "flipped")] == pytest.approx([0.7, 0.9, 0.2, 0.4])
    assert np.isnan(averaged(rows[1:2])["drop"])
    assert averaged(rows[1:2])["defined"] == 0


def test_an_unknown_modality_is_refused(run: Path) -> None:
    answer = CliRunner().invoke(app, ["study", "corruptions", str(run), "--modality", "dreams"])
    assert answer.exit_code != 0
    assert "Allowed are mri" in answer.output
