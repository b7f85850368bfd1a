"""External validation: a finished run judged on archives that it has never seen, whatever their form."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from common.data.base import Dataset
from simulations.cli import app
from simulations.external import evaluate_archive
from tests.studies import HOSPITALS, experiment, judged, made_dataset, written

CLASSES = ("a", "b", "c")
COLUMNS = {"method", "site", "role", "metric", "value", "low", "high", "n"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-class run with two seeds; its data are gone."""
    folder = tmp_path_factory.mktemp("external")
    path = written(folder / "seen.npz", made_dataset(CLASSES))
    judged(
        experiment(path, task__name="multiclass", seeds="[1, 2]", protocols="federated,local,leave-one-site-out"),
        folder / "made",
    )
    path.rename(folder / "elsewhere.npz")
    (folder / "seen.json").rename(folder / "elsewhere.json")
    return (folder / "made").rename(folder / "moved")


@pytest.fixture
def unseen(tmp_path: Path) -> Callable[..., Path]:
    """Write an archive of other images of two other hospitals."""

    def make(change: Callable[[Dataset], Dataset] = lambda data: data, sidecar: bool = True, **how: Any) -> Path:
        how = {"seed": 5, "sites": ("Delta", "Epsilon"), **how}
        path = written(tmp_path / f"unseen{len(list(tmp_path.iterdir()))}.npz", change(made_dataset(CLASSES, **how)))
        if not sidecar:
            path.with_suffix(".json").unlink()
        return path

    return make


def evaluate(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def values(run: Path, archive: Path) -> dict[tuple[str, str], float]:
    return {(row["site"], row["metric"]): row["value"] for row in evaluate_archive(run, archive).table}


def test_it_ends_with_one_json_object_and_a_row_per_site_and_metric(run: Path, unseen: Callable[..., Path]) -> None:
    result = evaluate(run, "--archive", unseen(), "--json")
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)
    assert {"run", "archive", "method", "config_digest", "data_digest", "privacy", "notes", "table"} == set(body)
    assert (body["privacy"], body["method"], body["notes"]) == ("none", "federated", [])
    assert {row["site"] for row in body["table"]} == {"Delta", "Epsilon"}
    for row in body["table"]:
        assert set(row) == COLUMNS
        assert row["role"] == "held-out"
        assert row["n"] == 16
        assert row["low"] <= row["high"]


def test_for_people_it_prints_a_table_and_the_privacy_line(run: Path, unseen: Callable[..., Path]) -> None:
    result = evaluate(run, "--archive", unseen(), "--method", "local/Beta")
    assert result.exit_code == 0
    assert "Delta" in result.stdout
    assert "local/Beta" in result.stdout
    assert "Privacy mechanism: none." in result.stdout


def test_on_the_runs_own_test_images_it_finds_what_the_run_found(run: Path, tmp_path: Path) -> None:
    """Judging one site's test images alone: the run's own verdict on that site must come out again."""
    from simulations.judging import Court
    from simulations.results import load_results

    own = load_results(run)
    court = Court(run, experiment(run.parent / "elsewhere.npz", task__name="multiclass").config, 100, 0)
    for site in HOSPITALS:
        path = written(tmp_path / f"{site}.npz", replace(court.federation.site(site).test, splits=None))
        found = {row["metric"]: row["value"] for row in evaluate_archive(run, path).table}
        for row in own.rows("headline", method="federated", site=site):
            assert found[row["metric"]] == pytest.approx(row["value"], nan_ok=True)


def test_the_images_of_the_training_are_no_external_validation(run: Path) -> None:
    result = evaluate(run, "--archive", run.parent / "elsewhere.npz")
    assert result.exit_code == 0
    assert "no external validation" in result.stderr


def test_classes_in_another_order_are_aligned_by_name(run: Path, unseen: Callable[..., Path]) -> None:
    def turned(data: Dataset) -> Dataset:
        assert data.labels is not None
        return replace(data, classes=CLASSES[::-1], labels=2 - data.labels)

    assert values(run, unseen(turned)) == values(run, unseen())


def test_without_a_json_labels_are_the_runs_indices_and_it_says_so(run: Path, unseen: Callable[..., Path]) -> None:
    bare, named = unseen(sidecar=False), unseen()
    found = evaluate_archive(run, bare)
    assert any("names no classes" in note and "0 a, 1 b, 2 c" in note for note in found.notes)
    expected = values(run, named)
    assert [row["value"] for row in found.table] == list(expected.values())
    assert {row["site"] for row in found.table} == {"centre-0", "centre-1"}


def test_images_of_another_size_or_in_colour_are_converted_and_it_says_so(
    run: Path, unseen: Callable[..., Path]
) -> None:
    def coloured(data: Dataset) -> Dataset:
        return replace(data, images=np.repeat(data.images, 3, axis=1))

    def doubled(data: Dataset) -> Dataset:
        return replace(
            data,
            images=data.images.repeat(2, axis=2).repeat(2, axis=3),
            masks=None if data.masks is None else data.masks.repeat(2, axis=1).repeat(2, axis=2),
        )

    expected = values(run, unseen())
    for change, words in ((coloured, "from 3 to 1 channels"), (doubled, "from 64 to 32 pixels")):
        path = unseen(change)
        assert values(run, path) == pytest.approx(expected)  # grey as colour and doubled pixels are the same pictures
        assert words in evaluate(run, "--archive", path).stderr


def test_grey_images_fit_a_run_on_colour(tmp_path: Path, unseen: Callable[..., Path]) -> None:
    judged(
        experiment(
            written(tmp_path / "colour.npz", made_dataset(CLASSES, channels=3)),
            task__name="multiclass",
            protocols="federated",
        ),
        tmp_path / "run",
    )
    found = evaluate_archive(tmp_path / "run", unseen())
    assert found.notes == ["images converted from 1 to 3 channels"]


def test_the_archive_can_be_read_another_way(run: Path, tmp_path: Path) -> None:
    data = made_dataset(CLASSES, seed=5, sites=("Delta",))
    assert data.labels is not None
    path = tmp_path / "theirs.npz"
    arrays = {"images": data.images[:, 0], "finding": np.array(CLASSES)[data.labels], "subject": data.patients}
    np.savez(path, **arrays)
    missing = evaluate(run, "--archive", path)
    assert missing.exit_code == 4
    read = evaluate(run, "--archive", path, "--set", "data.label=finding", "--set", "data.patient=subject", "--json")
    assert read.exit_code == 0, read.stderr
    rows = json.loads(read.stdout)["table"]
    assert {row["site"] for row in rows} == {"theirs"}
    assert any(row["low"] < row["high"] for row in rows)


def test_masks_are_aligned_by_name_too(tmp_path: Path) -> None:
    def twice(data: Dataset, swap: bool) -> Dataset:
        assert data.masks is not None
        masks = data.masks.copy()
        masks[:, 20:28, 2:9] = 2
        order = np.array([0, 2, 1] if swap else [0, 1, 2], np.uint8)
        names = ("background", "cup", "disc")
        return replace(data, masks=order[masks], mask_classes=tuple(names[each] for each in order))

    made = experiment(
        written(tmp_path / "seen.npz", twice(made_dataset(), swap=False)),
        task__name="segmentation",
        model__name="attention-unet",
        protocols="federated",
    )
    judged(made, tmp_path / "run")
    right, swapped = (
        written(tmp_path / f"{swap}.npz", twice(made_dataset(seed=5), swap=swap)) for swap in (False, True)
    )
    assert str(values(tmp_path / "run", right)) == str(values(tmp_path / "run", swapped))
    other = written(
        tmp_path / "o.npz", replace(twice(made_dataset(), False), mask_classes=("background", "cup", "rim"))
    )
    refused = evaluate(tmp_path / "run", "--archive", other)
    assert refused.exit_code == 4
    assert "rim" in refused.stderr


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ({"classes": ("a", "b", "x")}, 4, ["classes are a, b, x", "a, b, c"]),
        ({"classes": tuple("abcd"), "sidecar": False}, 4, ["has 4", "knows 3", ".json"]),
    ],
)
def test_other_classes_are_refused(run: Path, tmp_path: Path, how: dict[str, Any], code: int, words: list[str]) -> None:
    path = written(tmp_path / "other.npz", made_dataset(how["classes"]))
    if not how.get("sidecar", True):
        path.with_suffix(".json").unlink()
    result = evaluate(run, "--archive", path)
    assert result.exit_code == code
    assert all(word in result.stderr for word in words)


def test_what_cannot_be_evaluated_says_why(run: Path, unseen: Callable[..., Path], tmp_path: Path) -> None:
    path = unseen()
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "experiment.json").write_text((run / "experiment.json").read_text())
    cases: list[tuple[list[object], int, list[str]]] = [
        ([run, "--archive", path, "--method", "federatd"], 3, ["Did you mean 'federated'", "local/Alpha", "without/"]),
        ([run, "--archive", path, "--method", ""], 3, ["federated"]),
        ([run, "--archive", path, "--method", "../federated"], 3, ["federated"]),
        ([run, "--archive", tmp_path / "none.npz"], 4, ["none.npz"]),
        ([run, "--archive", run / "run.json"], 4, ["run.json"]),
        (
            [run, "--archive", path, "--set", "data.path=x"],
            3,
            ["data.path", "Did you mean 'data.patient'", "data.label"],
        ),
        ([run, "--archive", path, "--set", "rounds=3"], 3, ["rounds", "how an archive is read"]),
        ([tmp_path / "unfinished", "--archive", path], 8, ["run.json", "finish"]),
        ([tmp_path / "nowhere", "--archive", path], 8, ["nowhere"]),
    ]
    for words, code, said in cases:
        result = evaluate(*words)
        assert result.exit_code == code, (words, result.output)
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert all(word in result.stderr for word in said), (said, result.stderr)
