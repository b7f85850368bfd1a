"""`consilium study adaptation`: rows are what one would compute by hand, a stopped study goes on, all is written."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from client.evaluation import predict
from common.errors import ConfigError, RunFolderError
from common.journal import Journal
from common.metrics.base import Classified
from common.metrics.classification import Auroc, BalancedAccuracy
from common.seeds import derive
from simulations.adaptation.cells import SOURCES, Cell, Wish
from simulations.adaptation.study import Adapted, study_adaptation
from simulations.adaptation.summary import condition_rows, conditions, safety, summary
from simulations.cli import app
from simulations.judging import Case, open_court
from simulations.streams.base import Draw, Ground, halve, pooled
from simulations.streams.make import load_stream
from tests.studies import experiment, judged, made_dataset, written

SITES = ("Alpha", "Beta", "Gamma", "Delta")
STREAMS = ("no-shift", "iid", "label-sorted", "ring@2")
WISH = Wish(("tent",), STREAMS, (8,), ("Delta",), "ct")


def made_run(folder: Path, **changes: str) -> Path:
    path = written(folder / "seen.npz", made_dataset(("a", "b"), sites=SITES))
    more = {"task__positive": "b", "protocols": "federated", "data__held_out": "Delta", "seeds": "[1, 2]", **changes}
    judged(experiment(path, **more), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("adaptation"))


@pytest.fixture(scope="module")
def found(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    return study_adaptation(run, WISH, tmp_path_factory.mktemp("first"))


def row(found: Adapted, **wanted: object) -> dict[str, object]:
    [only] = [each for each in found.rows if all(each[key] == value for key, value in wanted.items())]
    return only


def test_the_shipped_model_is_judged_as_anywhere_else(run: Path, found: Adapted) -> None:
    """Oracle: halves, order and prediction made here, with the platform's own way of predicting."""
    _, _, court = open_court(run)
    (model,) = court.models(Case(2, ("federated",), "Delta"))
    from common.data.base import concatenate

    whole = concatenate([court.data("Delta", split) for split in ("train", "val", "test")])
    halves = halve(whole, derive(court.seed, "halves", "Delta"))
    said = predict([model], court.task, halves.judged)
    online = predict([model], court.task, halves.arriving)
    assert isinstance(said, Classified)
    for stream in ("iid", "label-sorted"):
        mine = row(found, seed=2, site="Delta", stream=stream, method="none")
        assert mine["images"] == len(halves.arriving)
        assert mine["post_auroc"] == pytest.approx(float(Auroc().value(said)[0]))
        assert mine["post_balanced_accuracy"] == pytest.approx(float(BalancedAccuracy().value(said)[0]))
        assert mine["online_auroc"] == pytest.approx(float(Auroc().value(online)[0])), "order does not matter to none"
        assert mine["relative_time"] == 1


def test_a_method_is_judged_online_and_after_its_stream(run: Path, found: Adapted) -> None:
    """Oracle: TENT driven here over the same stream, batch by batch."""
    from client.adaptation.build import build_adaptation
    from client.adaptation.measure import measure_source
    from common.data.base import concatenate

    _, _, court = open_court(run)
    (model,) = court.models(Case(1, ("federated",), "Delta"))
    halves = {
        name: halve(court.data(name, "test"), derive(court.seed, "halves", name)) for name in SITES if name != "Delta"
    }
    source = replace(
        halve(made_dataset(), 0),
        arriving=pooled({name: half.arriving for name, half in halves.items()}),
        judged=pooled({name: half.judged for name, half in halves.items()}),
    )
    whole = concatenate([court.data("Delta", split) for split in ("train", "val", "test")])
    ground = Ground(halve(whole, derive(court.seed, "halves", "Delta")), source)
    seed = derive(court.seed, "stream", "Delta", "iid", 1)
    stream = load_stream("iid")(ground, Draw(8, seed))
    method = build_adaptation("tent", model, measure_source(model, court.task, court.data("Alpha", "val")))
    cpu = torch.device("cpu")
    online = torch.cat([method.adapt(stream.arriving.batch(rows, cpu).images) for rows in stream.batches()])
    after = method.predict(stream.judged.batch(np.arange(len(stream.judged)), cpu).images)
    mine = row(found, seed=1, site="Delta", stream="iid", method="tent")
    for phase, probabilities, data in (("online", online, stream.arriving), ("post", after, stream.judged)):
        assert data.labels is not None
        brier = float(np.mean((probabilities[:, 0].numpy() - data.labels) ** 2))
        assert mine[f"{phase}_brier"] == pytest.approx(brier, abs=1e-5)
    assert mine["updates"] == len(list(stream.batches()))
    bare = row(found, seed=1, site="Delta", stream="iid", method="none")
    assert mine["post_brier"] != bare["post_brier"]


def test_gains_are_differences_of_rows_and_intervals_contain_no_seed_twice(found: Adapted) -> None:
    for each in condition_rows(conditions(found)):
        both = {
            method: [
                r for r in found.rows if all(r[k] == each[k] for k in ("site", "stream")) and r["method"] == method
            ]
            for method in ("none", "tent")
        }
        assert each["seeds"] == 2
        gain = np.mean([r["post_balanced_accuracy"] for r in both["tent"]]) - np.mean(
            [r["post_balanced_accuracy"] for r in both["none"]]
        )
        assert each["gain_post_balanced_accuracy"] == pytest.approx(gain, nan_ok=True)


def test_a_summary_by_hand(found: Adapted) -> None:
    kept = [each for each in conditions(found) if math.isfinite(each.gain["post_balanced_accuracy"])]
    gains = [each.gain["post_balanced_accuracy"] for each in kept]
    [mine] = [each for each in summary(kept) if (each["phase"], each["score"]) == ("post", "balanced_accuracy")]
    assert mine["conditions"] == len(gains) >= 3
    assert mine["mean_gain"] == pytest.approx(np.mean(gains))
    assert mine["worst"] == min(gains)
    assert mine["regret"] == pytest.approx(np.mean([max(0.0, -gain) for gain in gains]))
    assert mine["harmed"] == pytest.approx(np.mean([gain < -0.01 for gain in gains]))


def test_sorted_labels_do_not_count_towards_online_auroc(found: Adapted) -> None:
    [mine] = [each for each in summary(conditions(found)) if (each["phase"], each["score"]) == ("online", "auroc")]
    assert mine["conditions"] + mine["undefined"] == len(STREAMS) - 1
    assert "sorted" not in mine["worst_condition"]


def test_safety_is_asked_on_the_sources_alone(found: Adapted) -> None:
    rows = safety(conditions(found))
    assert {each["stream"] for each in rows} == {"no-shift"}
    for each in rows:
        assert each["passes"] == (each["low"] > -0.01)
    assert {r["site"] for r in found.rows if r["stream"] == "no-shift"} == {SOURCES}


def test_a_stopped_study_goes_on_and_finished_rows_stay(run: Path, found: Adapted, tmp_path: Path) -> None:
    told = []

    def stop(text: str) -> None:
        told.append(text)
        if len(told) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study_adaptation(run, WISH, tmp_path / "out", stop)
    record = tmp_path / "out" / "rows.jsonl"
    before = record.read_bytes()
    assert len(list(Journal(record))) == 4, "what it rests on and three cells"
    record.write_bytes(before + b'{"body": torn')
    again = study_adaptation(run, WISH, tmp_path / "out", told.append)
    assert record.read_bytes().startswith(before)
    timed = {"milliseconds", "relative_time"}
    for mine, known in zip(again.rows, found.rows, strict=True):
        assert {key: str(value) for key, value in mine.items() if key not in timed} == {
            key: str(value) for key, value in known.items() if key not in timed
        }
    count = len(list(Journal(record)))
    more = study_adaptation(run, replace(WISH, streams=("iid", "patient-clustered")), tmp_path / "out")
    assert len(more.cells) == 8
    assert len(list(Journal(record))) == count + 4, "iid was there"
    assert "about" in told[5]


def test_worker_processes_find_what_one_process_finds(
    run: Path, found: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.adaptation.study._workers", lambda experiment, jobs: 2)
    both = study_adaptation(run, WISH, tmp_path / "out")
    for mine, known in zip(both.rows, found.rows, strict=True):
        for name in set(mine) - {"milliseconds", "relative_time"}:
            assert str(mine[name]) == str(known[name]), name
    left, right = ([each.resampled for each in conditions(side)] for side in (both, found))
    for one, other in zip(left, right, strict=True):
        assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)


@pytest.mark.slow
def test_several_classes_are_judged_by_the_likeliest(tmp_path: Path) -> None:
    path = written(tmp_path / "seen.npz", made_dataset(("a", "b", "c"), sites=SITES))
    made = experiment(path, task__name="multiclass", protocols="federated", data__held_out="Delta")
    judged(made, tmp_path / "run")
    streams = ("iid", "prevalence-0.5", "label-sorted", "no-shift")
    found = study_adaptation(tmp_path / "run", Wish(("tent",), streams, (4,)), tmp_path / "out")
    for each in found.rows:
        assert not each["reason"]
        assert math.isnan(each["online_balanced_accuracy_source"])
        if each["stream"] == "iid":
            assert math.isfinite(each["post_balanced_accuracy"])


@pytest.mark.slow
def test_rows_of_another_run_are_not_mixed(found: Adapted, run: Path, tmp_path: Path) -> None:
    study_adaptation(run, replace(WISH, streams=("iid",)), tmp_path / "out")
    other = made_run(tmp_path, seeds="[1]")
    with pytest.raises(RunFolderError, match="holds a study of another run"):
        study_adaptation(other, WISH, tmp_path / "out")


def test_a_stream_that_cannot_be_drawn_says_why_and_the_others_go_on(run: Path, tmp_path: Path) -> None:
    found = study_adaptation(run, Wish(("tent",), ("iid", "prevalence-0.1"), (8,), ("Delta",)), tmp_path / "out")
    reasons = {(each["method"], each["stream"]): each["reason"] for each in found.rows}
    assert not reasons["tent", "iid"]
    for method in ("none", "tent"):
        assert "a share of 0.1 positives" in reasons[method, "prevalence-0.1"]
    mine = row(found, seed=1, method="tent", stream="prevalence-0.1")
    assert math.isnan(mine["post_auroc"])  # type: ignore[arg-type]
    table = {(each["phase"], each["score"]): each for each in summary(conditions(found))}
    assert table["post", "auroc"]["undefined"] == 1
    assert table["post", "auroc"]["reason"] == "", "it worked on another stream"


def test_a_method_that_does_not_fit_says_why_and_the_others_go_on(run: Path, tmp_path: Path) -> None:
    """The default model has no BatchNorm."""
    found = study_adaptation(run, Wish(("bn-adapt", "tent"), ("iid",), (8,)), tmp_path / "out")
    mine = row(found, seed=1, method="bn-adapt")
    assert "BatchNorm" in str(mine["reason"])
    assert math.isnan(mine["post_auroc"])  # type: ignore[arg-type]
    assert not row(found, seed=1, method="tent")["reason"]
    table = {(each["method"], each["phase"], each["score"]): each for each in summary(conditions(found))}
    never = table["bn-adapt", "post", "auroc"]
    assert "BatchNorm" in never["reason"]
    assert (never["conditions"], never["undefined"]) == (0, 1)
    assert math.isnan(never["mean_gain"])


@pytest.mark.slow
def test_a_site_left_out_is_judged_by_the_model_without_it(tmp_path: Path) -> None:
    data = made_dataset(("a", "b"), sites=SITES[:2])
    made = experiment(
        written(tmp_path / "seen.npz", data), task__positive="b", protocols="federated,leave-one-site-out"
    )
    judged(made, tmp_path / "run")
    found = study_adaptation(tmp_path / "run", Wish(("tent",), ("iid", "no-shift"), (8,)), tmp_path / "out")
    assert {(cell.training, cell.site) for cell in found.cells} == {
        ("without/Alpha", "Alpha"),
        ("without/Beta", "Beta"),
        ("without/Alpha", SOURCES),
        ("without/Beta", SOURCES),
    }
    _, _, court = open_court(tmp_path / "run")
    (model,) = court.models(Case(1, ("without/Beta",), "Beta"))
    said = predict([model], court.task, found.bench.stream(found.cells[2]).judged)
    [mine] = [each for each in found.rows if (each["site"], each["stream"], each["method"]) == ("Beta", "iid", "none")]
    assert isinstance(said, Classified)
    assert mine["post_auroc"] == pytest.approx(float(Auroc().value(said)[0]))
    sources = [each for each in found.cells if each.site == SOURCES and each.training == "without/Beta"]
    assert all(name.startswith("Alpha/") for name in found.bench.stream(sources[0]).arriving.patients)


def test_everything_is_written_and_printed(run: Path, found: Adapted, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    words = ["study", "adaptation", str(run), "--held-out", "Delta", "--methods", "tent,tent:learning-rate=0.5"]
    words += ["--streams", "no-shift,iid", "--batches", "8", "--out", out]
    answer = CliRunner().invoke(app, [*words, "--json"])
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    assert {each["method"] for each in said["summary"]} == {"tent", "tent:learning-rate=0.5"}
    assert set(said["passes"]) == {"tent", "tent:learning-rate=0.5"}
    for name in ("rows", "conditions", "summary", "gains", "safety", "attention"):
        with (tmp_path / "out" / f"{name}.csv").open(newline="") as file:
            assert list(csv.DictReader(file)), name
    for name in ("gains-post-balanced_accuracy", "gains-post-auroc", "gains-online-balanced_accuracy", "attention"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    people = CliRunner().invoke(app, words, env={"COLUMNS": "160"})
    assert people.exit_code == 0, people.output
    assert "regret" in people.stdout
    assert "lower bound > −1 point" in people.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "tend"], "Did you mean 'tent'"),
        (["--methods", "tent:learning-rat=1"], "Did you mean 'learning-rate'"),
        (["--methods", "tent:fast"], "not of the form key=value"),
        (["--streams", "iidd"], "Did you mean 'iid'"),
        (["--streams", "hair@2", "--modality", "ct"], "does not happen in ct"),
        (["--streams", "ring@2"], "give --modality"),
        (["--streams", "mixed", "--modality", "dreams"], "Allowed are mri"),
        (["--held-out", "Delt"], "Did you mean 'Delta'"),
        (["--batches", "0"], "sizes from 1"),
        (["--batches", "many"], "Allowed are whole numbers"),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed(run: Path, tmp_path: Path, words: list[str], said: str) -> None:
    answer = CliRunner().invoke(app, ["study", "adaptation", str(run), *words, "--out", str(tmp_path / "out")])
    assert answer.exit_code == ConfigError.exit_code, answer.output
    assert said in answer.stderr.replace("\n", " ")


@pytest.mark.slow
def test_runs_that_have_no_new_site_or_no_classes_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "seen.npz", made_dataset(("a", "b")))
    judged(experiment(path, task__positive="b", protocols="federated"), tmp_path / "all")
    with pytest.raises(RunFolderError, match=r"data.held-out"):
        study_adaptation(tmp_path / "all", replace(WISH, held_out=()), tmp_path / "out")
    judged(
        experiment(path, task__name="segmentation", protocols="federated", model__name="attention-unet"),
        tmp_path / "dense",
    )
    with pytest.raises(ConfigError, match=r"the task of .* is segmentation"):
        study_adaptation(tmp_path / "dense", WISH, tmp_path / "out")


@pytest.mark.slow
def test_a_site_of_one_class_has_undefined_scores_and_no_zero(tmp_path: Path) -> None:
    data = made_dataset(("a", "b"), sites=SITES, one_class="Delta")
    path = written(tmp_path / "seen.npz", data)
    judged(experiment(path, task__positive="b", protocols="federated", data__held_out="Delta"), tmp_path / "run")
    found = study_adaptation(tmp_path / "run", Wish(("tent",), ("iid",), (8,)), tmp_path / "out")
    for each in found.rows:
        assert math.isnan(each["post_auroc"])
        assert math.isfinite(each["post_brier"])
    for each in summary(conditions(found)):
        assert each["conditions"] == 0
        assert math.isnan(each["mean_gain"])
        assert each["undefined"] == 1


def test_a_damaged_cell_is_found(run: Path, tmp_path: Path) -> None:
    found = study_adaptation(run, replace(WISH, streams=("iid",)), tmp_path / "out")
    cell = next(each for each in found.cells if each.method == "tent")
    assert isinstance(cell, Cell)
    (tmp_path / "out" / "cells" / f"{cell.key}.safetensors").write_bytes(b"broken")
    with pytest.raises(RunFolderError, match="missing or damaged"):
        conditions(found)
