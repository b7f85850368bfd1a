"""Experiment files: what they may say, and what every mistake in them answers."""

from pathlib import Path

import pytest

from common.errors import ConfigError, UnknownNameError
from simulations.experiment import EMBEDDED, load_experiment, parse_change


def write(folder: Path, text: str) -> str:
    path = folder / "study.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", sorted(path.stem for path in EMBEDDED.glob("*.toml")))
def test_every_embedded_experiment_is_valid_and_called_like_its_file(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.study.name == name
    assert "federated" in experiment.study.protocols


def test_a_file_changes_only_what_it_says(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, "rounds = 3\n[data]\nimage-size = 32\n[train]\nlearning-rate = 1\n"))
    assert (experiment.config.rounds, experiment.config.data.image_size) == (3, 32)
    assert experiment.config.train.learning_rate == 1.0
    assert experiment.study.name == "study"
    assert experiment.config.model.name == load_experiment("phantom").config.model.name


def test_set_beats_the_file_and_reads_toml_or_text(tmp_path: Path) -> None:
    path = write(tmp_path, "rounds = 3\nseeds = [1]\n")
    changes = ["rounds=5", "seeds=[2, 3]", "data.held-out=valley, island", 'model.name="vit-tiny"']
    experiment = load_experiment(path, [*changes, "protocols=federated,pooled"])
    assert experiment.config.rounds == 5
    assert experiment.study.seeds == (2, 3)
    assert experiment.config.data.held_out == "valley, island"
    assert experiment.config.model.name == "vit-tiny"
    assert experiment.study.protocols == ("federated", "pooled")


def test_plain_lists_of_seeds_can_be_set() -> None:
    assert parse_change("seeds=1,2,3") == ("seeds", ["1", "2", "3"])
    assert load_experiment("phantom", ["seeds=1,2,3"]).study.seeds == (1, 2, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["train.learnin-rate=1"], ["train.learnin-rate", "Did you mean 'train.learning-rate'"]),
        (["rounds=0"], ["rounds", "0", "greater than or equal to 1"]),
        (["rounds=soon"], ["rounds", "soon", "integer"]),
        (["train.learning-rate=-1"], ["train.learning-rate", "-1"]),
        (["train.device=tpu"], ["train.device", "tpu"]),
        (["protocols=federatd"], ["federatd", "Did you mean 'federated'"]),
        (["seed=3"], ["seeds = [1, 2, 3]"]),
        (["seeds=[]"], ["seeds"]),
        (["engine=slurm"], ["engine"]),
        (["bootstrap=3"], ["bootstrap"]),
        (["rounds"], ["key=value"]),
        (["=3"], ["key=value"]),
        (["data=3"], ["data"]),
        (["data.partition=dirchlet"], ["data.partition", "dirichlet"]),
    ],
)
def test_mistakes_name_the_key_what_was_found_and_what_is_allowed(changes: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment("phantom", changes)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_lists_the_embedded_experiments_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'phantom'"):
        load_experiment("phantm")


def test_broken_toml_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 4"):
        load_experiment(write(tmp_path, "rounds = 3\nseeds = [1,\n\n= 4"))


def test_an_unknown_protocol_in_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        load_experiment(write(tmp_path, 'protocols = ["centralised"]'))


def test_a_relative_data_path_is_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "images.npz").write_bytes(b"")
    experiment = load_experiment(write(tmp_path, '[data]\nname = "archive"\npath = "images.npz"\n'))
    assert experiment.config.data.path == str((tmp_path / "images.npz").resolve())


def test_the_digest_covers_results_and_not_how_fast_they_come() -> None:
    same = {load_experiment("phantom", [change]).digest() for change in ("workers=0", "workers=2", "title=other")}
    assert len(same) == 1
    others = {load_experiment("phantom", [change]).digest() for change in ("rounds=11", "seeds=[2]", "bootstrap=200")}
    assert len(others | same) == 4
