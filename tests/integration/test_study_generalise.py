"""`consilium study generalise`: who judges, that comparisons are paired, and that it goes on and grows."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from common.metrics import METRICS
from common.metrics.base import Classified
from simulations.cli import app
from simulations.generalise.bench import Bench, Sitting
from simulations.generalise.benchmark import load_benchmark
from simulations.generalise.conduct import Contest, Generalised
from simulations.generalise.rows import Tabulator
from simulations.generalise.scores import Case, Scores
from simulations.generalise.trainings import Trainings
from simulations.trainer import new_stop_flag
from tests.studies import made_dataset, written

BENCHMARK = """
name = "made"
rounds = 1
seeds = [1, 2]
bootstrap = 200

[data]
name = "archive"
path = "made.npz"

[task]
name = "binary"
positive = "b"

[model]
name = "se-convnet"
width = 4

[attention]
patients = 2

[methods.fedavg]

[methods.same]
strategy.name = "fedprox"
strategy.mu = 0.0

[methods.rate]
train.learning-rate = [0.0005, 0.02]

[methods.both]
members = ["fedavg", "rate"]
"""
SITES, CLASSES = ("a", "b", "c"), ("a", "b")


def _written(folder: Path, more: str = "") -> str:
    written(folder / "made.npz", made_dataset(CLASSES, sites=SITES))
    path = folder / "made.toml"
    path.write_text(BENCHMARK + more)
    return str(path)


def _run(source: str, out: Path) -> tuple[Generalised, Scores]:
    contest = Contest(load_benchmark(source, ["workers=0"]))
    found = contest.run(out, new_stop_flag(), lambda _: lambda progress: None, lambda text: None)
    trainings = Trainings(contest.benchmark, contest.folds, out)
    bench = Bench(out, contest.benchmark.base.config, trainings.jobs(), 0)
    return found, Scores(trainings, bench, 200, 0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _written(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def made(source: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Generalised, Scores]:
    return _run(source, tmp_path_factory.mktemp("generalise") / "out")


def _rows(found: Generalised, table: str, **equal: object) -> list[dict[str, object]]:
    return [row for row in found.tables[table] if all(row[key] == value for key, value in equal.items())]


def test_every_row_is_judged_at_every_site_on_all_its_images(made: tuple[Generalised, Scores]) -> None:
    found, scores = made
    for method in scores.rows:
        rows = _rows(found, "sites", method=method, metric="auroc")
        assert [(row["site"], row["role"]) for row in rows] == [(site, "held-out") for site in SITES]
        for row in rows:
            assert row["n"] == sum(
                len(getattr(scores.bench.federation.site(row["site"]), split)) for split in ("train", "val", "test")
            )


def test_a_method_that_is_the_reference_differs_by_nothing(made: tuple[Generalised, Scores]) -> None:
    """Paired to the last bit: equal trainings, equal resamples of patients and seeds."""
    for row in _rows(made[0], "summary", method="same"):
        assert [row[name] for name in ("d_mean", "d_mean_low", "d_mean_high", "d_worst")] == [0.0] * 4
    for row in _rows(made[0], "differences", method="same"):
        assert (row["difference"], row["low"], row["high"], row["p"]) == (0.0, 0.0, 0.0, 1.0)
    assert {row["p_delong"] for row in _rows(made[0], "differences", method="same", metric="auroc")} == {1.0}


def test_an_ensemble_averages_probabilities_and_local_averages_metrics(made: tuple[Generalised, Scores]) -> None:
    found, scores = made
    fold = scores.trainings.folds[0]
    juries = {row: scores.juries(row, fold, "a") for row in ("fedavg", "rate", "both", "local", "ensemble")}
    assert juries["both"] == [juries["fedavg"][0] + juries["rate"][0]]
    assert juries["local"] == [("local/b",), ("local/c",)]
    assert juries["ensemble"] == [("local/b", "local/c")]
    for row, parts in (("both", ("fedavg", "rate")), ("ensemble", ("local",))):
        said = scores.predictions(Case(1, juries[row][0], "a", "all"))
        each = [scores.predictions(Case(1, jury, "a", "all")) for part in parts for jury in juries[part]]
        assert isinstance(said, Classified)
        mean = np.mean([one.probabilities for one in each if isinstance(one, Classified)], axis=0)
        assert said.probabilities == pytest.approx(mean, abs=1e-6)
    auroc = METRICS.load("auroc")()
    alone = [
        float(auroc.value(scores.predictions(Case(seed, jury, "a", "all")))[0])
        for seed in (1, 2)
        for jury in juries["local"]
    ]
    (row,) = _rows(found, "sites", method="local", site="a", metric="auroc")
    assert row["value"] == pytest.approx(np.mean(alone))


def test_summaries_are_the_mean_and_the_worst_of_the_sites(made: tuple[Generalised, Scores]) -> None:
    found, scores = made
    for method in scores.rows:
        for metric, worst in (("auroc", min), ("brier", max)):
            values = {row["site"]: row["value"] for row in _rows(found, "sites", method=method, metric=metric)}
            (row,) = _rows(found, "summary", method=method, metric=metric)
            assert row["mean"] == pytest.approx(np.mean(list(values.values())))
            assert row["worst"] == worst(values.values()) == values[row["worst_site"]]
            assert row["sd_sites"] == pytest.approx(np.std(list(values.values()), ddof=1))
            assert row["mean_low"] <= row["mean"] <= row["mean_high"]


def test_regret_is_zero_for_a_method_that_is_best_everywhere(made: tuple[Generalised, Scores]) -> None:
    found, _ = made
    methods = ("fedavg", "same", "rate", "both")
    table = {m: [row["value"] for row in _rows(found, "sites", method=m, metric="auroc")] for m in methods}
    best = np.max([table[m] for m in methods], axis=0)
    for method in methods:
        (row,) = _rows(found, "summary", method=method, metric="auroc")
        assert row["regret"] == pytest.approx(np.mean(best - table[method]))
        assert row["regret"] >= 0


def test_source_validation_chooses_and_the_oracle_stands_apart(made: tuple[Generalised, Scores]) -> None:
    found, scores = made
    for fold in scores.trainings.folds:
        rows = _rows(found, "selection", method="rate", fold=fold.name)
        assert [row["candidate"] for row in rows] == ["train.learning-rate = 0.0005", "train.learning-rate = 0.02"]
        assert [row["chosen"] for row in rows] == (
            [int(row["source_validation"] == max(one["source_validation"] for one in rows)) for row in rows]
        )
        assert max(row["judged"] for row in rows) == next(row["judged"] for row in rows if row["oracle"])
        number = [row["chosen"] for row in rows].index(1)
        assert scores.juries("rate", fold, "a") == [(f"rate.{number + 1}/{fold.name}",)]
    # Two candidates that would tie would make this test blind.
    assert any(row["chosen"] == 0 for row in found.tables["selection"])


def test_gain_is_over_the_sites_own_model_on_its_own_test_images(made: tuple[Generalised, Scores]) -> None:
    found, scores = made
    auroc = METRICS.load("auroc")()
    for site in SITES:
        (row,) = _rows(found, "gain", method="fedavg", site=site, metric="auroc")
        own = [scores.predictions(Case(seed, (f"local/{site}",), site, "test")) for seed in (1, 2)]
        theirs = [scores.predictions(Case(seed, (f"fedavg/without {site}",), site, "test")) for seed in (1, 2)]
        assert row["own"] == pytest.approx(np.mean([auroc.value(one)[0] for one in own]))
        assert row["difference"] == pytest.approx(np.mean([auroc.value(one)[0] for one in theirs]) - row["own"])
        assert row["n"] == len(scores.bench.federation.site(site).test)


def test_calibration_uses_the_sources_alone(made: tuple[Generalised, Scores]) -> None:
    rows = _rows(made[0], "calibration", method="fedavg")
    assert [row["site"] for row in rows] == list(SITES)
    for row in rows:
        (before,) = _rows(made[0], "sites", method="fedavg", site=row["site"], metric="ece")
        assert row["ece"] == pytest.approx(before["value"])
        assert row["temperature"] > 0
    assert not _rows(made[0], "calibration", method="local")  # several models: no one temperature


def test_it_goes_on_and_grows_without_doing_anything_twice(source: str, made: tuple[Generalised, Scores]) -> None:
    found, _ = made
    files = {path: path.stat().st_mtime_ns for path in found.folder.rglob("*.safetensors")}
    text = Path(source).read_text()
    more = Path(source).with_name("more.toml")
    more.write_text(text[: text.index("[methods.same]")] + '[methods.exp]\nstrategy.name = "fedexp"\n')
    grown, _ = _run(str(more), found.folder)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    names = list(dict.fromkeys(row["method"] for row in grown.tables["summary"]))
    assert names == ["fedavg", "same", "rate", "both", "exp", "local", "pooled", "ensemble", "best-single-site"]
    for method in ("fedavg", "both", "pooled"):
        before, after = _rows(found, "sites", method=method), _rows(grown, "sites", method=method)
        np.testing.assert_equal([list(row.values()) for row in after], [list(row.values()) for row in before])


def test_a_site_of_one_class_is_undefined_and_never_zero(tmp_path: Path) -> None:
    written(tmp_path / "made.npz", made_dataset(CLASSES, sites=SITES, one_class="c"))
    (tmp_path / "made.toml").write_text(BENCHMARK[: BENCHMARK.index("[methods.same]")])
    found, scores = _run(str(tmp_path / "made.toml"), tmp_path / "out")
    values = {row["site"]: row for row in _rows(found, "sites", method="fedavg", metric="auroc")}
    assert np.isnan(values["c"]["value"])
    assert np.isnan(values["c"]["low"])
    (row,) = _rows(found, "summary", method="fedavg", metric="auroc")
    assert row["mean"] == pytest.approx(np.mean([values["a"]["value"], values["b"]["value"]]))
    assert row["worst_site"] in ("a", "b")
    json.dumps(Tabulator(scores).answers("fedavg")[0][0])


def test_in_the_federation_every_site_is_judged_at_home(tmp_path: Path) -> None:
    source = _written(tmp_path)
    text = Path(source).read_text()
    bn = '[methods.fedbn]\nstrategy.name = "fedbn"\n'
    Path(source).write_text('protocol = "in-federation"\n' + text[: text.index("[methods.same]")] + bn)
    found, scores = _run(source, tmp_path / "out")
    fold = scores.trainings.folds[0]
    assert scores.juries("local", fold, "b") == [("local/b",)]
    rows = _rows(found, "sites", method="fedbn", metric="auroc")
    assert [(row["site"], row["role"]) for row in rows] == [(site, "in") for site in SITES]
    own = scores.bench.predictions(Sitting(1, ("fedbn/all",), "a", "test"))
    other = scores.bench.predictions(Sitting(1, ("fedavg/all",), "a", "test"))
    assert isinstance(own, Classified)
    assert isinstance(other, Classified)
    assert not np.allclose(own.probabilities, other.probabilities)


def test_the_command_prints_and_writes_what_was_found(source: str, made: tuple[Generalised, Scores]) -> None:
    out = made[0].folder
    text = ["study", "generalise", source, "--out", str(out), "--set", "workers=0"]
    answer = CliRunner().invoke(app, [*text, "--json"])
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    assert said["record"]["protocol"] == "leave-one-site-out"
    with (out / "tables" / "summary.csv").open(newline="") as file:
        assert {row["method"] for row in csv.DictReader(file)} >= {"fedavg", "pooled"}
    assert (out / "forest.png").stat().st_size > 10_000
    page = (out / "report.html").read_text()
    assert "train.learning-rate = 0.02" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    plain = CliRunner().invoke(app, text)
    assert plain.exit_code == 0, plain.output
    assert "best-single-site" in plain.stdout


def test_one_site_only_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    written(tmp_path / "made.npz", made_dataset(CLASSES, sites=("a",)))
    (tmp_path / "made.toml").write_text(BENCHMARK)
    out = tmp_path / "out"
    answer = CliRunner().invoke(app, ["study", "generalise", str(tmp_path / "made.toml"), "--out", str(out)])
    assert answer.exit_code != 0
    assert "needs two sites" in answer.output
    assert not out.exists()
