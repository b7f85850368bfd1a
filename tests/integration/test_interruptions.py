"""Real processes that are stopped, killed, starved of disk or run twice: what they say, and that nothing is lost."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.checkpoint import load_checkpoint
from simulations.results import load_results
from simulations.trainer import training_folder
from tests.federations import same_checkpoint
from tests.studies import arguments, experiment, judged, written

pytestmark = pytest.mark.slow  # each command starts Python and torch anew
PLANS = ("federated", "local/Alpha", "local/Beta", "local/Gamma")
SETTINGS = {"rounds": 8, "protocols": "federated,local"}
CONSILIUM = [sys.executable, "-c", "from simulations.cli import main; main()"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("data") / "made.npz")


@pytest.fixture(scope="module")
def unbroken(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    judged(experiment(archive, **SETTINGS), folder)
    return folder


class Started:
    """A command in a process of its own; signals go to it alone, as from `kill`."""

    def __init__(self, root: Path, *words: object, limit: int | None = None) -> None:
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        before: Callable[[], None] | None = None
        if limit is not None:
            size = limit
            before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
        self.process = subprocess.Popen(
            [*CONSILIUM, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=before,
        )

    def after(self, condition: Callable[[], bool]) -> "Started":
        """Wait until something has happened, while the process lives."""
        deadline = time.monotonic() + 120
        while not condition() and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.process.poll() is None, self.process.communicate()
        return self

    def send(self, number: int) -> "Started":
        self.process.send_signal(number)
        return self

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return self.process.returncode, out, err


def begun(folder: Path) -> Callable[[], bool]:
    """Tell whether the federated training has written a round."""
    return (training_folder(folder, 1, "federated") / "checkpoint.safetensors").exists


def same_end(left: Path, right: Path) -> bool:
    pairs = [[load_checkpoint(training_folder(run, 1, plan)) for run in (left, right)] for plan in PLANS]
    tables = [load_results(run).tables for run in (left, right)]
    return all(one and two and same_checkpoint(one, two) for one, two in pairs) and all(
        tables[0][name].equals(tables[1][name]) or str(tables[0][name].to_pydict()) == str(tables[1][name].to_pydict())
        for name in tables[0]
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_after_the_round_and_resume_ends_as_if_nothing_had_been(
    root: Path, archive: Path, unbroken: Path, tmp_path: Path, workers: int
) -> None:
    folder = tmp_path / "stopped run"
    words = arguments(archive, **{**SETTINGS, "workers": workers})
    started = Started(root, "run", "phantom", *words, "--out", folder, "--json")
    code, out, err = started.after(begun(folder)).send(signal.SIGINT).end()
    assert (code, out) == (130, "")
    assert "stopping after this round; press Ctrl-C again to stop at once" in err
    assert f"every finished round is saved. Go on with: consilium resume '{folder}'" in err
    assert not (folder / "run.json").exists()
    checkpoint = load_checkpoint(training_folder(folder, 1, "federated"))
    assert checkpoint is not None
    assert 1 <= checkpoint.round <= 8
    if workers:
        code, out, err = Started(root, "resume", folder, "--json").end()
        assert code == 0, err
        assert json.loads(out)["table"]
    else:
        judged(experiment(archive, **SETTINGS), folder, resume=True)
    assert same_end(folder, unbroken)


def test_two_ctrl_c_a_second_process_and_a_kill_later_the_end_is_the_same(
    root: Path, archive: Path, unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    words = arguments(archive, **{**SETTINGS, "workers": 2})
    started = Started(root, "run", "phantom", *words, "--out", folder, "--json").after(begun(folder))
    started.send(signal.SIGINT)
    time.sleep(0.02)
    code, out, err = started.send(signal.SIGINT).end()
    assert code in (130, -signal.SIGINT)  # the latter where the first had nearly ended it
    assert out == ""
    assert "consilium resume" in err

    first = Started(root, "resume", folder).after(lambda: _locked(folder)).send(signal.SIGSTOP)  # it takes its time
    code, out, err = Started(root, "resume", folder).end()
    assert (code, out) == (8, "")
    assert f"another process is at work in {folder}" in err
    assert first.process.poll() is None
    assert first.send(signal.SIGKILL).end()[0] == -signal.SIGKILL

    # Its workers die with it: the folder is free at once, and nobody else writes there.
    judged(experiment(archive, **SETTINGS), folder, resume=True)
    assert same_end(folder, unbroken)


def _locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_full_disk_says_what_is_saved_and_the_run_goes_on_when_there_is_space(
    root: Path, archive: Path, unbroken: Path, tmp_path: Path
) -> None:
    """A limit on the size of files, which the growing history reaches in the middle of the training."""
    folder = tmp_path / "run"
    size = (training_folder(unbroken, 1, "federated") / "history.jsonl").stat().st_size
    limit = max(size // 2, (training_folder(unbroken, 1, "federated") / "checkpoint.safetensors").stat().st_size + 4096)
    words = arguments(archive, **SETTINGS)
    code, out, err = Started(root, "run", "phantom", *words, "--out", folder, "--json", limit=limit).end()
    assert (code, out) == (8, "")
    assert "error: " in err
    assert "cannot be written: File too large" in err
    assert "ree space" in err
    assert f"every finished round is saved. Go on with: consilium resume {folder}" in err
    judged(experiment(archive, **SETTINGS), folder, resume=True)
    assert same_end(folder, unbroken)


def test_nobody_reads_stdout_any_more(root: Path, unbroken: Path) -> None:
    """`consilium list | true`: the reader has gone; no complaint and no traceback."""
    started = Started(root, "list", "--json")
    assert started.process.stdout is not None
    started.process.stdout.close()
    started.process.stdout = None
    code, _, err = started.end()
    assert code == 1
    assert err == ""
