"""A run that is killed, stopped or full of damage goes on to the very same end, or says why not."""

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

import client.personal.base
import server.rounds
from common.errors import RunFolderError
from common.journal import Journal
from server.checkpoint import NAME, load_checkpoint
from server.history import NAME as HISTORY
from server.history import History
from server.rounds import Stopped
from simulations.engine import Training, train
from tests.federations import SITES, same_checkpoint, small_config, sorted_like, train_small

KILLED_IN, ROUNDS = 4, 6
MOMENTS = ["before the history", "while writing the history", "before the checkpoint", "between two sites"]
CASES = [(name, "before the history") for name in ("fedavg", "fedadam")] + [("fedbn", each) for each in MOMENTS]


def config(name="fedavg", out="", **changes):
    """Two of three sites in each round, so that a site's own arrays may be several rounds old."""
    return small_config(rounds=ROUNDS, strategy__name=name, out=str(out), cohort__fraction=0.6, **changes)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str) -> None:
    """Let this process be killed at a moment of round 4."""
    append, save, learn = History.append, server.rounds.save_checkpoint, client.personal.base.train_locally
    trainings = []

    def append_or_die(self, record):
        if record.round == KILLED_IN and moment == "while writing the history":
            with self._journal.path.open("ab") as file:
                file.write(b'{"body": {"cohort": ["harb')
        if record.round == KILLED_IN and moment.endswith("the history"):
            die()
        append(self, record)

    def save_or_die(folder, checkpoint, digest):
        if checkpoint.round == KILLED_IN and moment == "before the checkpoint":
            die()
        save(folder, checkpoint, digest)

    def learn_or_die(*arguments):
        trainings.append(arguments)
        if len(trainings) == 2 * KILLED_IN and moment == "between two sites":
            die()
        return learn(*arguments)

    History.append, server.rounds.save_checkpoint, client.personal.base.train_locally = (
        append_or_die,
        save_or_die,
        learn_or_die,
    )


def killed(name: str, out: Path, moment: str) -> None:
    """Train in a process that dies in round 4 without a last word."""

    def run():
        arm(moment)
        train_small(config(name, out))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Unbroken runs, one per strategy."""
    done = {}

    def run(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            done[name] = folder, *train_small(config(name, folder))
        return done[name]

    return run


@pytest.mark.parametrize(("name", "moment"), CASES)
def test_a_run_killed_by_the_system_ends_as_an_unbroken_one(tmp_path, whole, name, moment):
    killed(name, tmp_path, moment)
    broken = config(name, tmp_path)
    assert load_checkpoint(tmp_path, broken.digest()).round == KILLED_IN - 1
    folder, end, records = whole(name)
    found, seen = train_small(broken)
    assert same_checkpoint(sorted_like(found, end), end)
    assert seen == records == History(tmp_path).records()
    for path in [folder / NAME, *folder.glob("sites/*/*")]:
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_it_may_be_resumed_with_other_workers(tmp_path, whole):
    killed("fedadam", tmp_path, "before the history")
    found, seen = train_small(config("fedadam", tmp_path), workers=2)
    _, end, records = whole("fedadam")
    assert same_checkpoint(sorted_like(found, end), end)
    assert seen == records


def test_killed_again_and_again_it_still_ends_the_same(tmp_path, whole):
    for moment in MOMENTS:
        killed("fedbn", tmp_path, moment) if moment != "between two sites" else None
    found, seen = train_small(config("fedbn", tmp_path))
    _, end, records = whole("fedbn")
    assert same_checkpoint(sorted_like(found, end), end)
    assert seen == records


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, records = train_small(small_config(out=str(tmp_path)))
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again, seen = train_small(small_config(out=str(tmp_path)))
    assert same_checkpoint(sorted_like(again, first), first)
    assert seen == records
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == written


def stopping(config, after):
    """Train with a flag that is set when round `after` is seen; 0 sets it before the start."""
    stop, records = threading.Event(), []
    if after == 0:
        stop.set()

    def observe(record):
        records.append(record)
        if record.round == after:
            stop.set()

    training = Training("small", config, tuple((site,) for site in SITES))
    return lambda: train(training, observe, stop, 0), records


def test_a_stopped_run_has_its_checkpoint_and_goes_on(tmp_path, whole):
    run, records = stopping(config(out=tmp_path / "stopped"), after=2)
    with pytest.raises(Stopped):
        run()
    assert [record.round for record in records] == [1, 2]
    assert load_checkpoint(tmp_path / "stopped").round == 2
    found, seen = train_small(config(out=tmp_path / "stopped"))
    _, end, records = whole("fedavg")
    assert same_checkpoint(sorted_like(found, end), end)
    assert seen == records


def test_a_stop_before_the_start_still_finishes_the_round_it_is_in(tmp_path):
    run, records = stopping(config(out=tmp_path), after=0)
    with pytest.raises(Stopped):
        run()
    assert len(records) == 1


def test_a_stop_in_the_last_round_is_no_stop(tmp_path):
    run, records = stopping(config(out=tmp_path), after=ROUNDS)
    assert run().round == len(records) == ROUNDS


@pytest.mark.parametrize("changes", [{"seed": 8}, {"train__batch_size": 5}, {"strategy__name": "fedadam"}])
def test_other_settings_are_refused_and_change_nothing(tmp_path, changes):
    train_small(small_config(out=str(tmp_path)))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError, match="holds a run with other settings"):
        train_small(small_config(out=str(tmp_path), **changes))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_may_be_moved(tmp_path, whole):
    """Where it lies is no setting that changes a result."""
    run, _ = stopping(config("fedbn", tmp_path / "here"), after=2)
    with pytest.raises(Stopped):
        run()
    (tmp_path / "here").rename(tmp_path / "there")
    found, _ = train_small(config("fedbn", tmp_path / "there"))
    _, end, _ = whole("fedbn")
    assert same_checkpoint(sorted_like(found, end), end)


@pytest.mark.parametrize("damage", ["checkpoint", "history", "history lost"])
def test_a_damaged_run_is_refused(tmp_path, damage):
    train_small(small_config(out=str(tmp_path)))
    path = tmp_path / (NAME if damage == "checkpoint" else HISTORY)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.unlink() if damage == "history lost" else path.write_bytes(content)
    with pytest.raises(RunFolderError):
        train_small(small_config(rounds=2, out=str(tmp_path)))


def test_a_folder_that_cannot_be_written_ends_the_run_clearly(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot be"):
        train_small(small_config(out=str(tmp_path / "file" / "run")))


def test_the_history_of_a_resumed_run_keeps_both_records_of_a_repeated_round(tmp_path):
    """Nothing that was once written is taken back; the last one counts."""
    killed("fedavg", tmp_path, "before the checkpoint")
    assert [body["round"] for body in Journal(tmp_path / HISTORY)] == [1, 2, 3, 4]
    train_small(config(out=tmp_path))
    bodies = list(Journal(tmp_path / HISTORY))
    assert [body["round"] for body in bodies] == [1, 2, 3, 4, 4, 5, 6]
    assert bodies[3] == bodies[4]
