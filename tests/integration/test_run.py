"""`consilium run` and what follows it, end to end on tiny archives: tables, files, seeds, workers, tasks, protocols."""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from client.own import own_arrays
from client.site import folder_name
from client.store import Store
from server.checkpoint import load_checkpoint
from simulations.cli import app
from simulations.judging import Case, Court
from simulations.protocols import PROTOCOLS
from simulations.results import ALL_SOURCES, HELD_OUT_MEAN, SUMMARIES, WORST_SOURCE, Results, load_results
from simulations.run_folder import read_settings
from simulations.tables import TABLES
from simulations.trainer import training_folder
from tests.federations import same_arrays
from tests.studies import HOSPITALS, arguments, experiment, judged, made_dataset, written

EVERY = json.dumps(list(PROTOCOLS))
COLUMNS = {"method", "site", "role", "metric", "value", "low", "high", "n"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("data") / "made.npz")


@pytest.fixture(scope="module")
def finished(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Run every protocol once through the command: the folder, the JSON on stdout, the text on stderr."""
    folder = tmp_path_factory.mktemp("runs") / "all of it"
    words = arguments(archive, protocols=EVERY, data__held_out="Gamma", title="Squares")
    result = CliRunner().invoke(app, ["run", "phantom", *words, "--out", str(folder), "--json"])
    assert result.exit_code == 0, result.stderr
    return folder, json.loads(result.stdout), result.stderr


def test_stdout_is_one_json_object_with_what_was_promised(finished: tuple[Path, dict[str, Any], str]) -> None:
    folder, body, _ = finished
    assert set(body) == {"run", "report", "config_digest", "privacy", "table"}
    assert (body["run"], body["report"]) == (str(folder), str(folder / "report.html"))
    assert body["privacy"] == "none"
    assert body["config_digest"] == load_results(folder).record["config_digest"]
    assert all(set(row) == COLUMNS for row in body["table"])
    assert {row["role"] for row in body["table"]} == {"in", "held-out"}
    for row in body["table"]:
        numbers = (row["low"], row["value"], row["high"])
        assert all(number is None or math.isfinite(number) for number in numbers)
        assert row["n"] > 0


def test_every_method_is_judged_where_it_has_an_answer(finished: tuple[Path, dict[str, Any], str]) -> None:
    _, body, _ = finished
    found = {(row["method"], row["site"], row["role"]) for row in body["table"]}
    usual = {
        *((site, "in") for site in ("Alpha", "Beta", ALL_SOURCES, WORST_SOURCE)),
        ("Gamma", "held-out"),
        (HELD_OUT_MEAN, "held-out"),
    }
    expected = {(PROTOCOLS.load(name)().method, *each) for name in PROTOCOLS for each in usual if name != "matrix"} - {
        ("leave one site out", *each) for each in usual
    }
    left_out = {("leave one site out", site, "held-out") for site in ("Alpha", "Beta", HELD_OUT_MEAN)}
    assert found == expected | left_out
    images = {row["n"] for row in body["table"] if row["site"] in HOSPITALS and row["metric"] == "auroc"}
    assert images == {4}  # 25 % of 8 patients, two images each


def test_the_run_folder_is_whole_and_names_nobody(finished: tuple[Path, dict[str, Any], str]) -> None:
    folder, _, _ = finished
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {f"tables/{name}.{kind}" for name in TABLES for kind in ("csv", "parquet")} <= files
    assert {"experiment.json", "run.json", "overlays.npz", "report.html", "figures/headline.svg"} <= files
    assert not [name for name in files if name.endswith((".tmp", ".part"))]
    for plan in ("federated", "pooled", "local/Alpha", "local/Beta", "without/Alpha", "without/Beta"):
        assert {f"trainings/seed-1/{plan}/{name}" for name in ("checkpoint.safetensors", "history.jsonl")} <= files
    assert "trainings/seed-1/local/Gamma/checkpoint.safetensors" not in files
    names = {f"p{number}" for number in range(8)}
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".csv"):
            assert not names & set(re.findall(r"\w+", path.read_text())), path


def test_the_report_stands_alone(finished: tuple[Path, dict[str, Any], str]) -> None:
    page = (finished[0] / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert not re.findall(r"@import|url\((?!['\"]?(?:data:|#))", page)
    assert "Squares" in page


def test_privacy_is_said_aloud_in_every_output(finished: tuple[Path, dict[str, Any], str]) -> None:
    folder, body, told = finished
    sentence = "Privacy mechanism: none."
    assert sentence in told
    assert body["privacy"] == "none"
    assert sentence in (folder / "report.html").read_text()
    record = json.loads((folder / "run.json").read_text())
    assert record["privacy"] == "none"
    assert any(sentence in note for note in record["notes"])
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert sentence in result.stderr


def test_the_record_says_with_what_it_was_made(finished: tuple[Path, dict[str, Any], str], archive: Path) -> None:
    record = load_results(finished[0]).record
    assert record["config"]["data.path"] == archive.name  # a report is passed on; folders stay at home
    for name in ("run.json", "report.html"):
        assert str(archive.parent) not in (finished[0] / name).read_text()
    assert {site["name"]: site["role"] for site in record["data"]["sites"]} == {
        "Alpha": "source",
        "Beta": "source",
        "Gamma": "held-out",
    }
    assert all(site["test"] == {"patients": 2, "images": 4} for site in record["data"]["sites"])
    assert set(record["seconds"]) == {"training", "evaluation", "report"}
    assert record["environment"]["device"] == "cpu"
    assert len(record["code"]["digest"]) == 64


def test_the_table_follows_from_the_checkpoints(finished: tuple[Path, dict[str, Any], str]) -> None:
    """Slow twin: load a model, predict the test images one by one, count pairs."""
    folder, body, _ = finished
    court = Court(folder, read_settings(folder).config, 100, 0)
    for site in HOSPITALS:
        (model,) = court.models(Case(1, ("federated",), site))
        data = court.data(site, "test")
        scores = [float(model(data.batch(np.array([row]), _cpu()).images).detach()) for row in range(len(data))]
        pairs = [
            (scores[a] > scores[b]) + 0.5 * (scores[a] == scores[b])
            for a in np.flatnonzero(data.labels == 1)
            for b in np.flatnonzero(data.labels == 0)
        ]
        (row,) = [row for row in body["table"] if _is(row, method="federated", site=site, metric="auroc")]
        assert row["value"] == pytest.approx(float(np.mean(pairs)))


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


def _is(row: dict[str, Any], **equal: Any) -> bool:
    return all(row[key] == value for key, value in equal.items())


def table(results: Results) -> list[dict[str, Any]]:
    """Give the headline with undefined values that compare equal."""
    return [
        {key: "–" if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
        for row in results.rows("headline")
    ]


def test_seed_and_workers_decide_alike(archive: Path, tmp_path: Path) -> None:
    alone = judged(experiment(archive, protocols="federated,local"), tmp_path / "alone")
    again = judged(experiment(archive, protocols="federated,local"), tmp_path / "again")
    crowd = judged(experiment(archive, protocols="federated,local", workers=2), tmp_path / "crowd")
    other = judged(experiment(archive, protocols="federated,local", seeds="[2]"), tmp_path / "other")
    assert table(alone) == table(again) == table(crowd)
    assert table(alone) != table(other)
    first, second = (load_checkpoint(training_folder(tmp_path / name, 1, "federated")) for name in ("alone", "crowd"))
    assert first is not None
    assert second is not None
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)


def test_one_training_spread_over_workers_gives_the_same(archive: Path, tmp_path: Path) -> None:
    """A single training shares its sites among the workers; several trainings take a worker each."""
    tables = [
        table(judged(experiment(archive, protocols="federated", workers=count), tmp_path / str(count)))
        for count in (0, 2)
    ]
    assert tables[0] == tables[1]


def test_several_seeds_are_averaged_and_each_is_trained(archive: Path, tmp_path: Path) -> None:
    both = judged(experiment(archive, protocols="federated", seeds="[1, 2]"), tmp_path / "both")
    single = [
        judged(experiment(archive, protocols="federated", seeds=f"[{seed}]"), tmp_path / str(seed)) for seed in (1, 2)
    ]
    for row, one, two in zip(both.rows("headline"), *(each.rows("headline") for each in single), strict=True):
        if row["site"] not in SUMMARIES:
            assert row["value"] == pytest.approx((one["value"] + two["value"]) / 2, nan_ok=True)
        assert row["seeds"] == 2
    assert {row["seed"] for row in both.rows("history")} == {1, 2}


@pytest.mark.parametrize(
    ("name", "dataset", "changes", "metric"),
    [
        ("three", {"classes": ("a", "b", "c")}, {"task__name": "multiclass"}, "auroc"),
        ("some", {"classes": ("a", "b c", "d")}, {"data__classes": "b c,d"}, "auroc"),
        ("findings", {"classes": ("a", "b"), "kind": "findings"}, {"task__name": "multilabel"}, "auroc"),
        ("masks", {}, {"task__name": "segmentation", "model__name": "attention-unet"}, "dice"),
        ("colour", {"channels": 3}, {"model__name": "vit-tiny"}, "auroc"),
    ],
)
def test_every_task_runs(
    tmp_path: Path, name: str, dataset: dict[str, Any], changes: dict[str, Any], metric: str
) -> None:
    path = written(tmp_path / f"{name}.npz", made_dataset(**dataset))
    results = judged(experiment(path, **changes), tmp_path / "run")
    assert results.primary == metric
    rows = [row for row in results.rows("headline", metric=metric) if row["site"] in HOSPITALS]
    assert {row["method"] for row in rows} == set(results.methods)
    assert all(0 <= row["value"] <= 1 for row in rows)
    assert {overlay.site for overlay in results.overlays} == set(HOSPITALS)


def test_segmentation_reports_through_the_command(tmp_path: Path) -> None:
    path = written(tmp_path / "masks.npz")
    words = arguments(path, task__name="segmentation", model__name="attention-unet", protocols="federated")
    result = CliRunner().invoke(app, ["run", "phantom", *words, "--out", str(tmp_path / "run"), "--json"])
    assert result.exit_code == 0, result.stderr
    assert {row["metric"] for row in json.loads(result.stdout)["table"]} == {"dice", "hd95", "ece", "brier"}


def test_a_site_with_one_class_trains_along_and_its_undefined_metrics_are_null(tmp_path: Path) -> None:
    path = written(tmp_path / "one.npz", made_dataset(one_class="Beta"))
    words = arguments(path, protocols="federated,local")
    result = CliRunner().invoke(app, ["run", "phantom", *words, "--out", str(tmp_path / "run"), "--json"])
    assert result.exit_code == 0, result.stderr
    rows = [row for row in json.loads(result.stdout)["table"] if row["site"] == "Beta"]
    assert {row["metric"]: row["value"] is None for row in rows if row["method"] == "federated"} == {
        "auroc": True,
        "balanced-accuracy": True,
        "sensitivity-at-90-specificity": True,
        "ece": False,
        "brier": False,
    }
    results = load_results(tmp_path / "run")
    assert any(note.startswith("Beta: auroc") for note in results.record["notes"])
    (mean,) = results.rows("headline", method="federated", site=ALL_SOURCES, metric="auroc")
    assert mean["n"] == 8  # Alpha and Gamma only
    shown = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert shown.exit_code == 0
    assert "–" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("strategy", ["fedbn", "apfl"])
def test_each_hospital_is_judged_with_what_is_its_own(archive: Path, tmp_path: Path, strategy: str) -> None:
    made = experiment(archive, protocols="federated", strategy__name=strategy, data__held_out="Gamma", rounds=2)
    judged(made, tmp_path / "run")
    folder = training_folder(tmp_path / "run", 1, "federated")
    checkpoint = load_checkpoint(folder)
    assert checkpoint is not None
    court = Court(tmp_path / "run", made.config, 100, 0)
    for site in HOSPITALS:
        (model,) = court.models(Case(1, ("federated",), site))
        own = Store(folder / "sites" / folder_name(site)).load(2)
        assert bool(own) == (site != "Gamma")
        expected = own_arrays(checkpoint.arrays, own)
        assert (site == "Gamma") == same_arrays(expected, checkpoint.arrays)
        for name, array in model.state_dict().items():
            assert np.array_equal(array.numpy(), expected[name]), name


def test_strange_site_names_make_safe_folders_and_tables(tmp_path: Path) -> None:
    names = ("a/b", "a//b", "Klinik für Radiologie " * 12, "../x", "–")
    path = written(tmp_path / "strange.npz", made_dataset(sites=names))
    results = judged(experiment(path, protocols="federated,local,leave-one-site-out"), tmp_path / "run")
    short = [site["name"] for site in results.record["data"]["sites"]]
    assert len(set(short)) == 5
    assert {row["site"] for row in results.rows("headline", method="local only")} - set(SUMMARIES) == set(short)
    folders = [training_folder(tmp_path / "run", 1, f"local/{name}") for name in short]
    assert len(set(folders)) == 5
    assert all((folder / "history.jsonl").is_file() for folder in folders)
    assert {path.name for path in tmp_path.iterdir()} == {"strange.npz", "strange.json", "run"}


def test_a_finished_run_resumes_to_the_same_table(archive: Path, tmp_path: Path) -> None:
    made = experiment(archive, protocols="federated,local")
    first = judged(made, tmp_path / "run")
    stamps = _digests(tmp_path / "run" / "trainings")
    again = judged(made, tmp_path / "run", resume=True)
    assert table(first) == table(again)
    assert _digests(tmp_path / "run" / "trainings") == stamps
    assert again.record["created"] == first.record["created"]


def _digests(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_runs_are_compared_and_one_is_written_again(finished: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    folder = str(finished[0])
    (finished[0] / "report.html").unlink()
    one = CliRunner().invoke(app, ["report", folder, "--json"])
    assert json.loads(one.stdout) == {"report": f"{folder}/report.html", "privacy": "none"}
    assert (finished[0] / "report.html").is_file()
    two = CliRunner().invoke(app, ["report", folder, folder, "--out", str(tmp_path / "both")])
    assert two.exit_code == 0, two.stderr
    assert Path(two.stdout.strip()).is_file()
    lost = CliRunner().invoke(app, ["report", folder, "--out", str(tmp_path / "lost")])
    assert lost.exit_code == 3
    assert not (tmp_path / "lost").exists()
