"""`consilium study corruptions`: the clean value is the run's own, harm and stability are measured, all is written."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from simulations.cli import app
from simulations.corrupted_site import FLOOR
from simulations.corruptions.corrupt import of_modality
from simulations.judging import open_court
from simulations.report.build import build_report, has_section
from simulations.results import load_results
from simulations.robustness import Robustness, fitting, study_corruptions
from tests.studies import experiment, judged, made_dataset, written

NAMES = ["gaussian_noise", "pixelate", "crop"]
ONLY = [word for name in NAMES for word in ("--only", name)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and another on the same data that learnt less, each with a held-out site that lacks a class."""
    folder = tmp_path_factory.mktemp("corruptions")
    path = written(folder / "seen.npz", made_dataset(("a", "b"), one_class="Gamma"))
    common = {"task__positive": "b", "seeds": "[1]", "protocols": "federated", "data__held_out": "Gamma"}
    judged(experiment(path, **common, rounds=2), folder / "run")
    judged(experiment(path, **common, rounds=1), folder / "other")
    return folder / "run", folder / "other"


@pytest.fixture(scope="module")
def found(runs: tuple[Path, Path]) -> Robustness:
    return study_corruptions(runs[0], "ultrasound", NAMES, runs[1])


def test_the_clean_value_is_that_of_the_run_and_sites_that_never_trained_stand_apart(
    runs: tuple[Path, Path], found: Robustness
) -> None:
    headline = load_results(runs[0]).rows("headline", method="federated", metric=found.metric, role="in")
    single = [row["value"] for row in headline if not row["site"].startswith(("all", "worst"))]
    source, held_out = found.roles
    assert (source["role"], source["sites"], held_out["role"], held_out["sites"]) == ("source", 2, "held-out", 1)
    assert source["clean"] == pytest.approx(float(np.mean(single)), abs=1e-9)
    # Gamma has one class: the metric is undefined there and shown as such, attention is not.
    assert math.isnan(held_out["clean"])
    assert math.isnan(held_out["drop_low"])
    assert held_out["defined"] == 0
    assert held_out["mas_low"] <= held_out["mas"] <= held_out["mas_high"] < 1


def test_without_a_choice_it_is_all_that_fit(runs: tuple[Path, Path]) -> None:
    court = open_court(runs[0])[2]
    assert fitting("ultrasound", [], court) == of_modality("ultrasound")
    assert "stain_shift" not in fitting("dermoscopy", [], court), "the images are grey"
    assert fitting("ultrasound", ["crop", "pixelate"], court) == ["pixelate", "crop"]


def test_every_corruption_has_five_severities_and_a_floor(found: Robustness) -> None:
    for role in ("source", "held-out"):
        rows = [row for row in found.rows if row["role"] == role]
        assert [row["corruption"] for row in rows if row["severity"] == 3] == NAMES
        assert len(rows) == 5 * len(NAMES) + 1
        [floor] = [row for row in rows if row["corruption"] == FLOOR[0]]
        assert min(row["as_js"] for row in rows) < floor["as_js"] <= 1
        assert floor["signature_shift"] < np.median([row["signature_shift"] for row in rows])
        for row in rows:
            assert row["moved_alone"] + row["flipped"] <= 1 + 1e-9
            assert row["flipped_alone"] <= row["flipped"] + 1e-9
            assert row["as_js_low"] <= row["as_js"] <= row["as_js_high"]
    for row in (row for row in found.rows if row["role"] == "source"):
        assert row["drop"] == pytest.approx(row["clean"] - row["value"])
    for row in (row for row in found.summary if row["role"] == "source"):
        own = [each for each in found.rows if each["corruption"] == row["corruption"] and each["role"] == "source"]
        assert row["drop"] == pytest.approx(np.mean([each["drop"] for each in own]))
        assert row["relative_robustness"] == pytest.approx(1 - row["drop"] / (row["clean"] - 0.5))


def test_the_corruption_error_is_the_ratio_of_what_both_models_lose_on_the_same_images(found: Robustness) -> None:
    ratios = []
    for row in (row for row in found.summary if row["role"] == "source"):
        own = [each for each in found.rows if each["corruption"] == row["corruption"] and each["role"] == "source"]
        theirs = sum(1 - each["reference_value"] for each in own)
        assert row["ce_excluded"] is (theirs < 0.02)
        if not row["ce_excluded"]:
            assert row["ce"] == pytest.approx(sum(1 - each["value"] for each in own) / theirs)
            ratios.append(row["ce"])
    assert ratios
    assert found.roles[0]["mce"] == pytest.approx(np.mean(ratios))


def test_against_itself_every_error_is_one(runs: tuple[Path, Path]) -> None:
    same = study_corruptions(runs[0], "ultrasound", NAMES[:1], runs[0])
    for row in (row for row in same.summary if row["role"] == "source"):
        for key in ("ce", "relative_ce"):
            assert math.isnan(row[key]) if row[f"{key}_excluded"] else row[key] == pytest.approx(1.0)
    assert same.roles[0]["mce"] == pytest.approx(1.0)


def test_everything_is_written_and_printed_and_the_report_shows_it(runs: tuple[Path, Path], tmp_path: Path) -> None:
    command = ["study", "corruptions", str(runs[0]), "--modality", "ultrasound", *ONLY]
    assert not has_section(load_results(runs[0]), "robustness")
    answer = CliRunner().invoke(app, [*command, "--json"])
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    out = runs[0] / "corruptions"
    with (out / "summary.csv").open(newline="") as file:
        assert [row["corruption"] for row in csv.DictReader(file)] == [row["corruption"] for row in said["summary"]]
    for picture in ("robustness", "curves"):
        assert (out / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert said["roles"][1]["clean"] is None
    page = build_report(load_results(runs[0]), tmp_path).read_text()
    assert 'id="robustness"' in page
    assert "corruptions/summary.csv" in page
    (out / "study.json").write_text("{")
    refused = CliRunner().invoke(app, ["report", str(runs[0])])
    assert refused.exit_code != 0
    assert "damaged" in refused.output
    (out / "study.json").write_text('{"run": "another"}')
    assert load_results(runs[0]).studies == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--modality", "dreams"], "Allowed are mri"),
        (["--modality", "ct", "--only", "fog"], "fog"),
        (["--modality", "ct", "--only", "ghosting"], "does not happen in ct"),
        (["--modality", "dermoscopy", "--only", "stain_shift"], "does not fit this run"),
        (["--modality", "ct", "--reference", "nowhere"], "is not there"),
    ],
)
def test_what_cannot_be_judged_is_refused(runs: tuple[Path, Path], arguments: list[str], said: str) -> None:
    answer = CliRunner().invoke(app, ["study", "corruptions", str(runs[0]), *arguments])
    assert answer.exit_code != 0
    assert said in answer.output


def test_a_reference_of_other_images_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    path = written(tmp_path / "others.npz", made_dataset(("a", "b"), seed=5))
    judged(experiment(path, task__positive="b", seeds="[1]", protocols="federated"), tmp_path / "others")
    answer = CliRunner().invoke(
        app, ["study", "corruptions", str(runs[0]), "--modality", "ct", "--reference", str(tmp_path / "others")]
    )
    assert answer.exit_code != 0
    assert "other images" in answer.output
