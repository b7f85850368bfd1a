"""Bags from a benchmark's folder to results: a run, its studies, privacy, and every command that needs pixels."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simulations.cli import app
from simulations.results import load_results
from tests import benchmark_folders

SMALL = {
    "rounds": 2,
    "workers": 0,
    "bootstrap": 100,
    "seeds": "[1]",
    "protocols": '["federated"]',
    "model.width": 4,
    "data.max-instances": 8,
    "attention.every": 1,
    "train.device": "cpu",
}


def words(data: Path, **changes: object) -> list[str]:
    flat = (
        SMALL | {"data.path": data} | {key.replace("__", ".").replace("_", "-"): each for key, each in changes.items()}
    )
    return [
        word
        for key, value in flat.items()
        for word in ("--set", f"{key}={json.dumps(value) if isinstance(value, bool) else value}")
    ]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    benchmark_folders.camelyon16(folder)
    return folder


@pytest.fixture(scope="module")
def run(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    result = CliRunner().invoke(app, ["run", "fed-camelyon16", *words(slides), "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    return out


def test_the_run_judges_both_hospitals_and_measures_attention(run: Path) -> None:
    results = load_results(run)
    assert results.record["data"]["image_size"] == 0
    assert {row["site"] for row in results.tables["headline"].to_pylist()} >= {"RUMC", "UMCU"}
    assert results.tables["add"].num_rows == 4  # each hospital with each
    assert results.overlays == []
    assert "instances of 7 features" in (run / "report.html").read_text()


def test_shift_of_attention_between_the_hospitals(run: Path) -> None:
    result = CliRunner().invoke(app, ["study", "shift", str(run)])
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (["explain"], "`consilium explain`"),
        (["privacy", "audit"], "an audit by attacks"),
        (["study", "corruptions", "--modality", "histology"], "a study of corruptions"),
    ],
)
def test_what_needs_pixels_says_so(run: Path, command: list[str], what: str) -> None:
    place = 2 if command[0] in ("study", "privacy") else 1
    result = CliRunner().invoke(app, [*command[:place], str(run), *command[place:]])
    assert result.exit_code == 3
    assert f"{what} works on pixels, and the data are bags" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__augment": True}, "'train.augment' = true works on pixels"),
        (
            {"model__name": "vit-tiny"},
            "model 'vit-tiny' takes images, and the data are bags of instances with 7 features",
        ),
        ({"data__orientation": "rot90"}, "'data.orientation' = 'rot90' works on pixels"),
    ],
)
def test_settings_of_images_are_refused_before_anything_is_written(
    slides: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    out = tmp_path / "run"
    result = CliRunner().invoke(app, ["run", "fed-camelyon16", *words(slides, **changes), "--out", str(out)])
    assert result.exit_code == 3
    assert message in " ".join(result.stderr.split())
    assert not out.exists()


def test_a_model_of_bags_refuses_images(tmp_path: Path) -> None:
    setting = ["--set", "model.name=abmil", "--set", "data.patients-per-site=6"]
    result = CliRunner().invoke(app, ["run", "phantom", *setting, "--out", str(tmp_path / "run")])
    assert result.exit_code == 3
    assert "model 'abmil' takes bags of instances, and the data are images of" in " ".join(result.stderr.split())


@pytest.mark.slow
def test_patients_are_protected_in_bags_too(slides: Path, tmp_path: Path) -> None:
    private = {"privacy__mechanism": "gaussian", "privacy__fewest-patients": 2, "protocols": '["federated"]'}
    private |= {"privacy__engine": "auto", "rounds": 1}
    out = tmp_path / "run"
    result = CliRunner().invoke(app, ["run", "fed-camelyon16", *words(slides, **private), "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    assert "gaussian" in load_results(out).record["privacy"]
