"""What a user can get wrong: each mistake ends with its exit code and says what was found and what to do."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from client.cli import app as site_app
from common.data.base import Dataset
from server.cli import app as server_app
from simulations.cli import app
from tests.studies import arguments, experiment, judged, made_dataset, written

PICTURE = b"\x89PNG\r\n\x1a\nthis is no picture"


def call(*words: object, of: typer.Typer = app) -> Result:
    return CliRunner().invoke(of, [str(word) for word in words])


def refused(result: Result, code: int, *said: str) -> str:
    """Check that a command ended as a user's mistake must: code, text on stderr, nothing on stdout, no traceback."""
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for words in said:
        assert words in result.stderr, (words, result.stderr)
    assert result.stderr.count(".") + result.stderr.count(":") > 1  # found, allowed, what to do
    return result.stderr


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Run with `changes`; whatever is refused must leave no run folder behind."""

    def invoke(archive: Path | None = None, experiment: object = "phantom", **changes: Any) -> Result:
        folder = tmp_path / "refused"
        result = call("run", experiment, *arguments(archive, **changes), "--out", folder, "--json")
        assert not folder.exists()
        return result

    return invoke


# ---- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train__learnin_rate": 1}, ["'train.learnin-rate'", "Did you mean 'train.learning-rate'?"]),
        ({"rounds": 0}, ["'rounds' is 0", "greater than or equal to 1"]),
        ({"rounds": "soon"}, ["'rounds' is 'soon'", "integer"]),
        ({"train__batch_size": 1.5}, ["'train.batch-size' is 1.5", "integer"]),
        ({"train__augment": "maybe"}, ["'train.augment' is 'maybe'", "boolean"]),
        ({"train__learning_rate": -1}, ["'train.learning-rate' is -1", "greater than 0"]),
        ({"train__device": "tpu"}, ["'train.device' is 'tpu'", "cuda"]),
        ({"train__device": "cuda:99"}, ["cuda:99", "usable GPUs", "'cpu'"]),
        ({"privacy__mechanism": "laplacian"}, ["'privacy.mechanism' is 'laplacian'", "none"]),
        ({"engine": "slurm"}, ["'engine' is 'slurm'", "in-process"]),
        ({"bootstrap": 5}, ["'bootstrap' is 5", "100"]),
        ({"seeds": "[1, 2, 1]"}, ["'seeds' is [1, 2, 1]", "1 stands there twice"]),
        ({"seeds": "[-1]"}, ["'seeds'", "-1", "greater than or equal to 0"]),
        ({"protocols": "local,local"}, ["'protocols'", "'local' stands there twice"]),
        ({"protocols": "federatd"}, ["'federatd'", "Did you mean 'federated'?"]),
        ({"model__name": "vit-tinny"}, ["'vit-tinny'", "Did you mean 'vit-tiny'?"]),
        ({"strategy__name": "fedvag"}, ["'fedvag'", "Did you mean 'fedavg'?"]),
        ({"task__name": "binery"}, ["'binery'", "Did you mean 'binary'?"]),
        ({"data__name": "phantm"}, ["'phantm'", "Did you mean 'phantom'?"]),
        ({"data__held_out": "valey"}, ["'valey'", "Did you mean 'valley'?"]),
        ({"data__held_out": "north,harbour,university,valley,lakeside,island"}, ["all 6 sites", "At least one"]),
        ({"cohort__quorum": 9}, ["'cohort.quorum' is 9", "at most"]),
        ({"task__positive": "cyst"}, ["'cyst'", "lesion"]),
        ({"model__name": "attention-unet"}, ["attention-unet"]),
        (
            {"protocols": "leave-one-site-out", "data__held_out": "north,harbour,university,valley,lakeside"},
            ["trains nothing", "island"],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_are_refused_before_any_folder_is_made(
    run: Callable[..., Result], changes: dict[str, Any], said: list[str]
) -> None:
    refused(run(**changes), 3, *said)


def test_an_experiment_that_is_not_there_or_no_toml(run: Callable[..., Result], tmp_path: Path) -> None:
    refused(run(experiment="phantm"), 3, "Did you mean 'phantom'?", "Embedded: ")
    refused(run(experiment=tmp_path), 3, "neither a file")
    (tmp_path / "broken.toml").write_text("rounds = \n")
    refused(run(experiment=tmp_path / "broken.toml"), 3, "no" + "t valid TOML", "line 1")
    (tmp_path / "latin.toml").write_bytes(b'title = "\xfc"\n')
    refused(run(experiment=tmp_path / "latin.toml"), 3, "not valid TOML")
    (tmp_path / "typo.toml").write_text("[data]\nnme = 'phantom'\n")
    refused(run(experiment=tmp_path / "typo.toml"), 3, "'data.nme'", "Did you mean 'data.name'?")


def test_an_experiment_without_a_name_is_called_like_its_file(tmp_path: Path) -> None:
    from simulations.experiment import load_experiment

    path = tmp_path / "My Study_2 (final).toml"
    path.write_text("rounds = 1\n")
    assert load_experiment(str(path)).study.name == "my-study-2-final"


def test_a_bare_number_is_a_text_where_a_text_is_wanted(tmp_path: Path) -> None:
    path = written(tmp_path / "digits.npz", made_dataset(("0", "1", "2")))
    made = experiment(path, data__classes="1", task__positive=2)
    assert (made.config.data.classes, made.config.task.positive) == ("1", "2")


# ---- data -------------------------------------------------------------------------------------


def archive(folder: Path, **columns: Any) -> Path:
    """Write an archive with some of its arrays spoilt."""
    path = written(folder / "data.npz")
    with np.load(path) as stored:
        arrays = dict(stored)
    spoilt = {name: change(arrays.get(name)) for name, change in columns.items()}
    np.savez(path, **{name: array for name, array in {**arrays, **spoilt}.items() if array is not None})
    return path


def with_nan(images: Any) -> Any:
    values = images / np.float32(255)
    values[3, 5, 5] = np.nan
    return values


SPOILT: list[tuple[dict[str, Callable[[Any], Any]], list[str]]] = [
    ({"images": with_nan}, ["1 images hold NaN"]),
    ({"images": lambda images: images / np.float32(2)}, ["pixel values run from", "[0, 1]"]),
    ({"images": lambda images: images.astype(np.int32)}, ["dtype int32", "uint8"]),
    ({"images": lambda images: images[:, None, None]}, ["shape (48, 1, 1, 32, 32)", "[N, H, W]"]),
    ({"images": lambda images: images[:, 0]}, ["shape (48, 32)"]),
    ({"images": lambda images: None}, ["no array 'images'"]),
    ({"images": lambda images: images[:-1]}, ["48", "47"]),
    ({"labels": lambda labels: labels + 1}, ["labels run from 1 to 2", "0 to 1"]),
    ({"labels": lambda labels: labels - 1}, ["negative label"]),
    ({"labels": lambda labels: labels + 0.5}, ["float64", "integers"]),
    ({"centre": lambda centre: centre + 1}, ["site"]),
    ({"split": lambda split: (np.arange(48) % 3).astype(np.int8)}, ["patients stand in two splits"]),
    ({"split": lambda split: np.full(48, 7, np.int8)}, ["split", "0 (train)"]),
    ({"patient": lambda patient: np.array(["one"] * 48)}, ["has 1 patients", "3 at least"]),
]


@pytest.mark.parametrize(("columns", "said"), SPOILT, ids=[f"{i}-{next(iter(c))}" for i, (c, _) in enumerate(SPOILT)])
def test_archives_that_are_not_what_they_must_be(
    run: Callable[..., Result], tmp_path: Path, columns: dict[str, Callable[[Any], Any]], said: list[str]
) -> None:
    refused(run(archive(tmp_path, **columns)), 4, *said)


def test_masks_of_another_size_or_missing(run: Callable[..., Result], tmp_path: Path) -> None:
    segment = {"task__name": "segmentation", "model__name": "attention-unet"}
    refused(run(archive(tmp_path, masks=lambda masks: masks[:, 1:]), **segment), 4, "masks have shape", "same size")
    refused(run(archive(tmp_path, masks=lambda masks: masks * 9), **segment), 4, "value 9")
    refused(run(archive(tmp_path, masks=lambda masks: None), **segment), 4, "no masks")


def test_files_that_are_missing_or_damaged(run: Callable[..., Result], tmp_path: Path) -> None:
    refused(run(tmp_path / "nowhere.npz"), 4, "nowhere.npz")
    path = written(tmp_path / "data.npz")
    whole = path.read_bytes()
    for content in (b"", b"no zip", whole[: len(whole) // 2], whole[:2000] + b"\0" * 40 + whole[2040:]):
        path.write_bytes(content)
        refused(run(path), 4, "data.npz")
    path.write_bytes(whole)
    path.with_suffix(".json").write_text("{")
    refused(run(path), 4, "data.json")


def test_a_folder_with_a_damaged_picture_or_none(run: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "hospital"
    folder.mkdir()
    (folder / "manifest.csv").write_text("image,label,patient,site\na.png,x,p,s\n")
    where = {"data__name": "folder", "data__path": folder}
    refused(run(**where), 4, "the image of row 1 is missing")
    (folder / "a.png").write_bytes(PICTURE)
    refused(run(**where), 4, "row 1")


def test_labels_that_are_missing_or_of_another_kind_than_the_task(run: Callable[..., Result], tmp_path: Path) -> None:
    refused(run(archive(tmp_path, labels=lambda labels: None)), 3, "no labels", "data.label", "segmentation")
    path = written(tmp_path / "findings.npz", made_dataset(kind="findings"))
    refused(run(path, task__name="multiclass"), 4, "several labels each", "multilabel")
    path = written(tmp_path / "single.npz")
    refused(run(path, task__name="multilabel"), 4, "one class per image")


def test_three_classes_need_a_positive_one(run: Callable[..., Result], tmp_path: Path) -> None:
    path = written(tmp_path / "three.npz", made_dataset(("a", "b", "c")))
    refused(run(path), 3, "task.positive", "a, b, c")


def test_a_class_that_no_site_has_is_allowed_and_one_site_may_have_one_class(tmp_path: Path) -> None:
    """Stated behaviour; `test_run.py` shows that what is undefined there is null."""
    only = made_dataset(one_class="Beta")
    assert only.labels is not None
    path = written(tmp_path / "all.npz", replace(only, labels=np.zeros_like(only.labels)))
    results = judged(experiment(path, protocols="federated"), tmp_path / "run")
    values = {row["metric"]: row["value"] for row in results.rows("headline", site="Alpha")}
    assert np.isnan(values["auroc"])
    assert np.isfinite(values["brier"])


# ---- folders ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with the archive beside it."""
    folder = tmp_path_factory.mktemp("done")
    judged(experiment(written(folder / "data.npz"), protocols="federated"), folder / "run")
    return folder / "run"


def test_a_run_folder_that_is_used_is_never_written_over(done: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    same = arguments(done.parent / "data.npz", protocols="federated")
    refused(call("run", "phantom", *same, "--out", done), 8, "exists already", f"consilium resume {done}")
    other = arguments(done.parent / "data.npz", protocols="federated", rounds=2)
    refused(call("run", "phantom", *other, "--out", done, "--resume"), 8, "other settings", "consilium resume")
    assert {path: path.read_bytes() for path in done.rglob("*") if path.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    refused(call("run", "phantom", *same, "--out", tmp_path / "mine"), 8, "not empty")
    refused(
        call("run", "phantom", *same, "--out", tmp_path / "mine" / "thesis.txt"), 8, "thesis.txt", "Not a directory"
    )
    refused(call("run", "phantom", *same, "--out", tmp_path / "mine" / "thesis.txt" / "run"), 8, "thesis.txt")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_resume_and_report_need_a_run(done: Path, tmp_path: Path) -> None:
    refused(call("resume", tmp_path), 8, "experiment.json is missing")
    refused(call("resume", tmp_path / "nowhere"), 8, "nowhere")
    refused(call("run", "phantom", "--resume"), 3, "--out", "consilium resume")
    refused(call("report", tmp_path), 8, "run.json")
    for content in ("", "[]", '{"settings": [], "began": {}}'):
        (tmp_path / "experiment.json").write_text(content)
        refused(call("resume", tmp_path), 8, "experiment.json is damaged")
    told = json.loads((done / "experiment.json").read_text())
    told["settings"]["train.sped"] = 3
    (tmp_path / "experiment.json").write_text(json.dumps(told))
    refused(call("resume", tmp_path), 8, "another version", "train.sped")


def test_a_damaged_checkpoint_is_refused_and_not_trained_over(done: Path, tmp_path: Path) -> None:
    copy = _copy(done, tmp_path / "run")
    checkpoint = copy / "trainings" / "seed-1" / "federated" / "checkpoint.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-5] ^= 1
    checkpoint.write_bytes(bytes(content))
    result = call("resume", copy)
    assert result.exit_code == 8
    assert "checkpoint.safetensors is damaged" in result.stderr
    assert checkpoint.read_bytes() == bytes(content)


def test_data_that_changed_after_the_start_are_refused(done: Path, tmp_path: Path) -> None:
    copy = _copy(done, tmp_path / "run")
    told = json.loads((copy / "experiment.json").read_text())
    told["settings"]["data.path"] = str(written(tmp_path / "data.npz", made_dataset(seed=9)))
    (copy / "experiment.json").write_text(json.dumps(told))
    refused(call("resume", copy), 8, "the data are not those", "put the data back")


def test_a_run_goes_on_from_another_directory_and_after_its_data_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "data.npz")
    monkeypatch.chdir(tmp_path)
    judged(experiment(Path("data.npz"), protocols="federated"), Path("run"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = call("resume", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.stderr
    for name in ("data.npz", "data.json"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    refused(call("resume", tmp_path / "run"), 4, "data.npz")
    words = arguments(Path("data.npz"), protocols="federated")
    result = call("run", "phantom", *words, "--out", tmp_path / "run", "--resume", "--json")
    assert result.exit_code == 0, result.stderr


def test_runs_of_one_second_get_a_folder_each(tmp_path: Path) -> None:
    from simulations.run_folder import new_folder

    folders = [new_folder("study", tmp_path / "runs") for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() for folder in folders)


def _copy(run: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(run, to))


# ---- the smaller commands ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        (app, []),
        *((app, [name]) for name in ("run", "resume", "evaluate", "report", "settings", "list")),
        (site_app, []),
        (site_app, ["check"]),
        (server_app, []),
        (server_app, ["check"]),
    ],
)
def test_every_command_explains_itself(commands: typer.Typer, words: list[str]) -> None:
    result = call(*words, "--help", of=commands)
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


@pytest.mark.parametrize("commands", [app, site_app, server_app])
def test_the_version_is_printed(commands: typer.Typer) -> None:
    assert call("--version", of=commands).stdout.startswith("consilium ")
    assert call("no-such-command", of=commands).exit_code == 2


def test_every_setting_is_listed_with_its_meaning() -> None:
    from common.config import default_values

    rows = json.loads(call("settings", "--json").stdout)
    assert set(default_values()) - {"seed"} < {row["key"] for row in rows}
    assert all(row["meaning"] and row["allowed"] for row in rows)
    assert [row["key"] for row in json.loads(call("settings", "train.batch", "--json").stdout)] == ["train.batch-size"]
    assert "train.batch-size" in call("settings", "train").stdout
    refused(call("settings", "trian"), 3, "'trian'", "Did you mean 'train")


def test_the_parts_of_every_family_are_listed() -> None:
    rows = {row["family"]: row["parts"].split(", ") for row in json.loads(call("list", "--json").stdout)}
    assert "vit-tiny" in rows["models"]
    assert "phantom" in rows["experiments"]
    assert "fedbn" in call("list", "strategies").stdout
    refused(call("list", "modles"), 3, "Did you mean 'models'?")


def site_file(folder: Path, data: Path, **more: Any) -> Path:
    path = folder / "site.toml"
    told = {"name": "Alpha", "state": str(folder / "state"), **more}
    lines = [f"{key} = {json.dumps(value)}" for key, value in told.items()]
    path.write_text("\n".join([*lines, "[data]", 'name = "archive"', f'path = "{data}"', ""]))
    return path


def one_site(**how: Any) -> Dataset:
    return made_dataset(sites=("Alpha",), **how)


def test_a_site_that_is_ready_says_what_it_has(tmp_path: Path) -> None:
    path = site_file(tmp_path, written(tmp_path / "a.npz", one_site()), device="cpu")
    told = json.loads(call("check", path, "--json", of=site_app).stdout)
    assert (told["site"], told["device"], told["privacy"], told["notes"]) == ("Alpha", "cpu", "none", [])
    assert told["test"] == {"images": 4, "patients": 2, "of benign": 2, "of malign": 2, "with foreground": 4}
    shown = call("check", path, of=site_app).stdout
    assert "ready" in shown
    assert "Privacy mechanism: none." in shown
    single = site_file(tmp_path, written(tmp_path / "b.npz", one_site(one_class="Alpha")))
    assert "all train images are of one class (benign)" in call("check", single, of=site_app).stdout


def test_paths_in_a_sites_file_count_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service is started from anywhere; what it keeps must lie where it lay before."""
    (tmp_path / "hospital").mkdir()
    written(tmp_path / "hospital" / "a.npz", one_site())
    path = site_file(tmp_path / "hospital", Path("a.npz"), state="kept")
    for place in (tmp_path, tmp_path / "hospital", Path("/")):
        monkeypatch.chdir(place)
        assert call("check", path, of=site_app).exit_code == 0
    monkeypatch.chdir(tmp_path / "hospital")
    assert call("check", path.name, of=site_app).exit_code == 0
    assert sorted(each.name for each in tmp_path.rglob("kept")) == ["kept"]


def test_a_site_that_is_not_ready_says_why(tmp_path: Path) -> None:
    good = written(tmp_path / "a.npz", one_site())
    refused(call("check", tmp_path / "none.toml", of=site_app), 3, "none.toml")
    refused(call("check", site_file(tmp_path, good, colour="red"), of=site_app), 3, "colour")
    refused(call("check", site_file(tmp_path, good, device="tpu"), of=site_app), 3, "device")
    refused(call("check", site_file(tmp_path, good, state=str(good / "x")), of=site_app), 3, "state")
    refused(call("check", site_file(tmp_path, tmp_path / "lost.npz"), of=site_app), 4, "lost.npz")
    several = written(tmp_path / "b.npz")
    refused(call("check", site_file(tmp_path, several), of=site_app), 4, "hold 3 sites")


def test_the_coordinators_settings_are_checked(tmp_path: Path) -> None:
    assert "Privacy mechanism: none." in call("check", of=server_app).stdout
    path = tmp_path / "run.toml"
    path.write_text(f'rounds = 3\nout = "{tmp_path}/out"\n')
    told = json.loads(call("check", path, "--json", of=server_app).stdout)
    assert (told["rounds"], told["finished rounds"], told["privacy"]) == (3, 0, "none")
    assert not (tmp_path / "out").exists()
    for text, code, said in (
        ('[strategy]\nname = "fedvag"', 3, "Did you mean 'fedavg'?"),
        ('[model]\nattention = "cbamm"', 3, "Did you mean 'cbam'?"),
        ("rounds = 0", 3, "'rounds' is 0"),
        ("round = 3", 3, "Did you mean 'rounds'?"),
        ("rounds = ", 3, "not valid TOML"),
        (f'out = "{path}"', 8, "no folder"),
    ):
        path.write_text(text)
        refused(call("check", path, of=server_app), code, said)
    refused(call("check", tmp_path / "none.toml", of=server_app), 3, "none.toml")


# ---- what goes wrong inside a site ------------------------------------------------------------


def test_a_training_that_diverges_is_named_with_what_to_do(tmp_path: Path) -> None:
    words = arguments(
        written(tmp_path / "data.npz"),
        protocols="federated",
        train__learning_rate=10,
        train__optimizer="sgd",
        rounds=20,
    )
    result = call("run", "phantom", *words, "--out", tmp_path / "run")
    assert result.exit_code == 7
    assert "error: training federated · seed 1: 0 usable updates" in result.stderr
    assert "lower `train.learning-rate`" in result.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_inside_a_site_is_a_code_and_shows_itself_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("patient Miller has no liver")

    monkeypatch.setattr("client.personal.base.train_locally", broken)
    words = arguments(written(tmp_path / "data.npz"), protocols="federated,local", workers=workers)
    for more, seen in (([], False), (["--verbose"], True)):
        result = call("run", "phantom", *words, "--out", tmp_path / f"run{seen}", *more)
        assert result.exit_code == 7
        assert "training federated · seed 1: 0 usable updates" in result.stderr
        assert "internal" in result.stderr
        assert "--verbose shows it" in result.stderr
        assert result.stdout == ""
        if not workers:  # the runner does not see what other processes write
            assert ("Miller" in result.stderr) is seen
