"""`consilium study shift`: a run whose sites look alike or not, judged from its folder alone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from common.attention.signature import SignatureMeter
from simulations.cli import app
from simulations.judging import Case, Court
from simulations.run_folder import read_settings
from simulations.shift import study_shift
from simulations.shift_rows import DISTANCES, site_rows
from tests.studies import experiment, judged, made_dataset, written

CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shift")
    path = written(folder / "seen.npz", made_dataset(CLASSES))
    judged(experiment(path, task__name="multiclass", seeds="[1, 2]", protocols="federated"), folder / "run")
    return folder / "run"


def test_rows_are_those_of_the_signature(run: Path) -> None:
    """Oracle: the meter that sites run. Their mean over patients is the mean of the rows."""
    court = Court(run, read_settings(run).config, 0, 0)
    (name, *_) = [site.name for site in court.federation.sites]
    (model,) = court.models(Case(1, ("federated",), name))
    data = court.data(name, "test")
    meter = SignatureMeter(model)
    meter.add(data.batch(np.arange(len(data)), next(model.parameters()).device).images, data.patients)
    rows = site_rows(model, meter.schema, data, seed=1)
    assert_allclose(rows.signatures.mean(0), meter.finish().mean, atol=1e-12)
    assert len(rows.signatures) == len(rows.features) == len(set(data.patients))
    pairs = {(patient, label) for patient, label in zip(data.patients, data.labels, strict=True)}
    assert len(rows.cells) == len(pairs)
    assert sorted(rows.labels) == sorted(label for _, label in pairs)


def test_every_pair_is_compared_and_shown(run: Path, tmp_path: Path) -> None:
    found = study_shift(run)
    assert len(found.pairs) == len(found.sites) * (len(found.sites) - 1) // 2
    for row in found.pairs:
        assert 0 <= row["add_w"] <= 1
        assert 0 <= row["add_m"] <= 2
        assert 0 < row["p"] <= row["q"] <= 1
        assert all(np.isfinite(row[name]) for name in DISTANCES)
    answer = CliRunner().invoke(app, ["study", "shift", str(run), "--out", str(tmp_path / "out"), "--json"])
    assert answer.exit_code == 0, answer.output
    body = json.loads(answer.stdout)
    assert body["pairs"] == found.pairs
    assert len(body["blocks"]) == len(found.pairs)
    assert [row["site"] for row in body["watch"]] == list(found.sites)
    assert (tmp_path / "out" / "watch.csv").exists()
    assert (tmp_path / "out" / "blocks.png").read_bytes().startswith(b"\x89PNG")
    assert body["relations"] == []
    assert not (tmp_path / "out" / "relations.csv").exists()
    with (tmp_path / "out" / "pairs.csv").open(newline="") as file:
        assert [row["first"] for row in csv.DictReader(file)] == [row["first"] for row in found.pairs]
    assert (tmp_path / "out" / "shift.png").read_bytes().startswith(b"\x89PNG")


def test_the_terminal_names_sites_and_what_moved(run: Path) -> None:
    answer = CliRunner().invoke(app, ["study", "shift", str(run)], env={"COLUMNS": "160"})
    assert answer.exit_code == 0, answer.output
    assert "D²⊥" in answer.stdout
    assert "beyond chance" in answer.stdout
    assert (run / "shift" / "blocks.csv").is_file()


def test_other_data_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "seen.npz", made_dataset(CLASSES))
    judged(experiment(path, task__name="multiclass", seeds="[1]", protocols="federated"), tmp_path / "run")
    data = made_dataset(CLASSES)
    data.images[0] ^= 255
    written(path, data)
    answer = CliRunner().invoke(app, ["study", "shift", str(tmp_path / "run")])
    assert answer.exit_code != 0
    assert "not those that it was trained on" in answer.stderr


def test_a_model_without_attention_is_told_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path / "seen.npz", made_dataset(CLASSES))
    made = experiment(path, task__name="multiclass", seeds="[1]", protocols="federated", model__attention="none")
    judged(made, tmp_path / "run")
    answer = CliRunner().invoke(app, ["study", "shift", str(tmp_path / "run")])
    assert answer.exit_code != 0
    assert "model.attention" in answer.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["study", "shift", str(tmp_path)])
    assert answer.exit_code != 0
    assert "run.json" in answer.stderr


def test_a_segmenter_is_measured_too(tmp_path: Path) -> None:
    path = written(tmp_path / "seen.npz", made_dataset(CLASSES))
    made = experiment(
        path,
        task__name="segmentation",
        model__name="unet",
        model__attention="attention-gate",
        seeds="[1]",
        protocols="federated",
    )
    judged(made, tmp_path / "run")
    assert all(np.isfinite(row["feature_frechet"]) for row in study_shift(tmp_path / "run").pairs)


def test_a_run_of_one_site_has_nothing_to_compare(tmp_path: Path) -> None:
    path = written(tmp_path / "one.npz", made_dataset(CLASSES, sites=("Alpha",)))
    judged(experiment(path, task__name="multiclass", protocols="federated"), tmp_path / "run")
    answer = CliRunner().invoke(app, ["study", "shift", str(tmp_path / "run")])
    assert answer.exit_code != 0
    assert "has one site" in " ".join(answer.stderr.split())


def test_with_local_models_it_says_how_distance_goes_with_the_loss_and_which_head_moved(tmp_path: Path) -> None:
    """Oracles: `study drop`'s own answer; and the heads' entropies, whose mean gap is the distance of their block."""
    path = written(tmp_path / "seen.npz", made_dataset(CLASSES[:2]))
    changes = {"model__name": "vit-tiny", "task__positive": "b", "protocols": "federated,local"}
    judged(experiment(path, **changes), tmp_path / "run")
    answer = CliRunner().invoke(app, ["study", "shift", str(tmp_path / "run"), "--json"])
    assert answer.exit_code == 0, answer.output
    drop = CliRunner().invoke(app, ["study", "drop", str(tmp_path / "run"), "--json"])
    assert drop.exit_code == 0, drop.output
    assert json.loads(answer.stdout)["relations"] == json.loads(drop.stdout)["relations"] != []
    found = study_shift(tmp_path / "run")
    first, second = found.pairs[0]["first"], found.pairs[0]["second"]
    rows = [row for row in found.blocks if (row["first"], row["second"]) == (first, second)]
    for layer in range(1, 5):
        gaps = {row["head"]: row["w"] for row in rows if row["block"] == f"block{layer}/head_ent"}
        assert set(gaps) == {"", "1", "2", "3", "4"}
        assert gaps.pop("") == pytest.approx(np.mean(list(gaps.values())))
    shown = CliRunner().invoke(app, ["study", "shift", str(tmp_path / "run")], env={"COLUMNS": "200"})
    assert ", head " in shown.stdout
    assert "What tells the drop" in shown.stdout
