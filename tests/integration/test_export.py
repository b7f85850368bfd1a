"""`consilium export`: what leaves a finished run answers elsewhere as it did at home, and says nothing it must not."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from client.adaptation.artefact import read_artefact
from client.cli import app as site_app
from client.evaluation import predict
from common.arrays import read_arrays
from common.data.archive import write_archive
from simulations.cli import app
from simulations.judging import Case, open_court
from tests.studies import experiment, judged, made_dataset, written


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    path = written(folder / "seen.npz", made_dataset())
    judged(experiment(path, protocols="federated", data__held_out="Gamma"), folder / "run")
    return folder / "run"


def call(*words: object, code: int = 0) -> str:
    found = CliRunner().invoke(app, list(map(str, words)))
    assert found.exit_code == code, found.output
    return found.output


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("out")
    return folder, json.loads(call("export", run, "--out", folder / "shipped", "--key", folder / "key", "--json"))


def test_it_answers_at_a_hospital_as_it_did_in_the_run(run: Path, exported: tuple[Path, dict], tmp_path: Path) -> None:
    folder, body = exported
    assert "fasa" in body["adaptations"]
    assert not body["note"]
    _, _, court = open_court(run)
    data = court.data("Gamma", "test")
    (model,) = court.models(Case(1, ("federated",), "Gamma"))
    wanted = predict([model], court.task, data).probabilities[:, 0]
    write_archive(tmp_path / "new.npz", data)
    site = tmp_path / "site.toml"
    site.write_text(
        'name = "gamma"\nstate = "state"\ndevice = "cpu"\n[data]\nname = "archive"\n'
        f'[shipped]\nfolder = "{folder / "shipped"}"\ntrusted-key = "{body["key"]}"\n'
        '[adaptation]\nmethods = ["fasa"]\n'
    )
    words = ["predict", str(site), str(tmp_path / "new.npz"), "--out", str(tmp_path / "out.csv"), "--adapt", "fasa"]
    found = CliRunner().invoke(site_app, words)
    assert found.exit_code == 0, found.output
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert np.allclose([float(row["malign"]) for row in rows], wanted, atol=2e-6)


def test_the_artefact_knows_the_source_sites_alone_and_no_place_on_disk(run: Path, exported: tuple[Path, dict]) -> None:
    folder, body = exported
    artefact = read_artefact(folder / "shipped" / "artefact.safetensors", bytes.fromhex(body["key"]))
    _, _, court = open_court(run)
    val = [court.data(name, "val") for name in ("Alpha", "Beta")]
    assert artefact.source.images == sum(map(len, val))
    assert artefact.source.attention.counts.sum() == artefact.source.images
    assert set(artefact.card.settings) == {key for key in court._config.flat() if key.startswith(("model.", "task."))}
    content = (folder / "shipped" / "artefact.safetensors").read_bytes()
    assert str(run).encode() not in content
    assert b"p0" not in content
    arrays, notes = read_arrays(folder / "shipped" / "model.safetensors")
    assert notes == {}
    assert arrays


def test_nothing_is_overwritten_and_the_key_is_kept(run: Path, exported: tuple[Path, dict], tmp_path: Path) -> None:
    folder, body = exported
    assert "nothing is overwritten" in call("export", run, "--out", folder / "shipped", "--key", folder / "key", code=3)
    again = json.loads(call("export", run, "--out", tmp_path / "more", "--key", folder / "key", "--json"))
    assert (again["key"], again["model"]) == (body["key"], body["model"])
    assert "seed 9 did not train" in call(
        "export", run, "--out", tmp_path / "x", "--key", folder / "key", "--seed", 9, code=3
    )
    assert "trusted-key" in call("export", run, "--out", tmp_path / "told", "--key", folder / "key")


def test_a_run_with_one_source_site_ships_no_null(tmp_path: Path) -> None:
    path = written(tmp_path / "seen.npz", made_dataset())
    judged(experiment(path, protocols="federated", data__held_out="Beta, Gamma"), tmp_path / "run")
    body = json.loads(call("export", tmp_path / "run", "--out", tmp_path / "out", "--key", tmp_path / "key", "--json"))
    assert "no null between sites" in body["note"]
    assert "fasa" not in body["adaptations"]


@pytest.mark.slow
def test_a_private_run_ships_no_statistics_of_patients(tmp_path: Path) -> None:
    path = written(tmp_path / "seen.npz", made_dataset())
    made = experiment(
        path, protocols="federated", data__held_out="Gamma", privacy__mechanism="gaussian", privacy__fewest_patients=1,
        privacy__epsilon=50,
    )  # fmt: skip
    judged(made, tmp_path / "run")
    body = json.loads(call("export", tmp_path / "run", "--out", tmp_path / "out", "--key", tmp_path / "key", "--json"))
    assert "promises privacy" in body["note"]
    arrays, _ = read_arrays(tmp_path / "out" / "artefact.safetensors")
    assert arrays == {}
