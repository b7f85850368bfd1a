"""`consilium explain`: the atlas of a finished run, its tables, and what it refuses."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from common.explanations.grad_cam import GradCam
from simulations.cli import app
from simulations.explain import explain_run
from simulations.judging import Case, open_court
from tests.studies import HOSPITALS, experiment, judged, made_dataset, written

CLASSES = ("a", "b")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    path = written(folder / "seen.npz", made_dataset(CLASSES))
    made = experiment(path, task__positive="b", seeds="[1, 2]", protocols="federated,local", model__attention="cbam")
    judged(made, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def shown(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("atlas") / "out"
    answer = CliRunner().invoke(app, ["explain", str(run), "--site", "Beta", "--out", str(out), "--json"])
    assert answer.exit_code == 0, answer.output
    return out, json.loads(answer.stdout)


def test_everything_is_written(shown: tuple[Path, dict]) -> None:
    out, body = shown
    assert body["sites"] == ["Beta"]
    assert body["explanations"] == ["gates", "grad-cam", "hybrid"]
    assert set(body["skipped"]) == {"raw", "rollout", "relevance"}
    for name in ("agreement", "tests", "attention"):
        with (out / f"{name}.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == len(body[name])
    for name in ("cases-1", "mean-gates", "mean-grad-cam", "mean-hybrid"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = re.sub(r"base64,[^\"]+", "", (out / "atlas.html").read_text())
    assert "Cases of Beta" in page
    assert "http" not in page.replace("http-equiv", "")
    assert all(name not in page for name in ("p0", "p1", "seen.npz"))


def test_maps_that_know_no_image_stand_beside_the_others(shown: tuple[Path, dict]) -> None:
    _, body = shown
    rows = {(row["explanation"], row["measure"]): row for row in body["agreement"] if row["lesions"] == "all"}
    assert {name for name, _ in rows} == {
        "uniform", "centre", "gates", "mean of gates", "grad-cam", "mean of grad-cam", "hybrid", "mean of hybrid",
    }  # fmt: skip
    assert rows["uniform", "lift"]["value"] == pytest.approx(1)
    assert rows["uniform", "auprc"]["value"] == pytest.approx(rows["uniform", "energy"]["value"])
    assert {row["patients"] for row in rows.values()} == {rows["uniform", "lift"]["patients"]}


def test_the_gallery_holds_the_explanation_of_the_label(run: Path) -> None:
    """Oracle: the same model and images, asked here for the expert's class."""
    found = explain_run(run, ["Gamma"], seed=2)
    (atlas,) = found.atlas
    _, _, court = open_court(run)
    (model,) = court.models(Case(2, ("federated",), "Gamma"))
    data = court.data("Gamma", "test")
    batch = data.batch(np.arange(len(data)), torch.device("cpu"))
    maps = GradCam()(model, batch.images, batch.labels).numpy()
    for image, each in zip(atlas.images, atlas.maps["grad-cam"], strict=True):
        place = next(k for k in range(len(data)) if np.array_equal(data.images[k][0], image))
        np.testing.assert_allclose(each, maps[place], atol=1e-6)
    patients = {name: count for name, (_, count) in atlas.means["grad-cam"].items()}
    labels = data.labels
    assert patients == {
        name: len(set(data.patients[labels == place]))
        for place, name in enumerate(data.classes)
        if (labels == place).any()
    }
    for mean, _ in atlas.means["gates"].values():
        assert mean.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_all_sites_and_words_for_people(run: Path) -> None:
    answer = CliRunner().invoke(app, ["explain", str(run), "--method", "local/Alpha"], env={"COLUMNS": "160"})
    assert answer.exit_code == 0, answer.output
    assert all(site in answer.stdout for site in HOSPITALS)
    assert "Not shown: rollout." in answer.stdout
    assert (run / "explain" / "cases-3.png").exists()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--site", "Betta"], "site 'Betta' is not known. Did you mean 'Beta'"),
        (["--seed", "3"], "seed 3 was not trained"),
        (["--method", "pooled"], "holds no trained model"),
    ],
)
def test_what_is_not_there_is_said(run: Path, extra: list[str], words: str) -> None:
    answer = CliRunner().invoke(app, ["explain", str(run), *extra])
    assert answer.exit_code != 0
    assert words in " ".join(answer.stderr.split())


@pytest.mark.slow
def test_a_model_that_segments_and_one_without_attention(tmp_path: Path) -> None:
    path = written(tmp_path / "seen.npz", made_dataset(CLASSES))
    judged(
        experiment(path, task__name="segmentation", protocols="federated", model__name="attention-unet"),
        tmp_path / "dense",
    )
    found = explain_run(tmp_path / "dense", ["Alpha"])
    assert found.explanations == ("gates", "grad-cam", "hybrid")
    assert set(found.atlas[0].means["gates"]) == {"with finding"}
    judged(
        experiment(path, task__positive="b", protocols="federated", model__name="convnet", model__attention="none"),
        tmp_path / "no",
    )
    found = explain_run(tmp_path / "no", ["Alpha"])
    assert found.explanations == ("grad-cam",)
    assert found.attention == []
