"""The run folder: one process at a time works in it, and it holds all that a resume needs."""

import fcntl
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.arrays import write_atomic
from common.errors import ConfigError, RunFolderError
from simulations.experiment import Experiment, build

SETTINGS = "experiment.json"
"""`settings`, flat, and `began`: when, on which data, with which code."""


def new_folder(name: str, root: Path = Path("runs")) -> Path:
    """Make a folder named after the experiment and the time; runs that begin in one second get one each.

    Raises:
        RunFolderError: It cannot be made.
    """
    stem = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    for ending in itertools.chain([""], (f"-{number}" for number in itertools.count(2))):
        folder = root / f"{stem}{ending}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _unusable(folder, error) from None
        break
    return folder


def check_folder(folder: Path, experiment: Experiment, resume: bool) -> None:
    """Refuse a folder that this run cannot go into; nothing is made.

    Raises:
        RunFolderError: It is not empty and `resume` is off, it holds another experiment, or it is no folder.
    """
    try:
        used = any(folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(folder, error) from None
    if used and not resume:
        raise RunFolderError(
            f"the run folder {folder} exists already and is not empty. A run needs a folder of its own: give another "
            f"`--out`, or go on with the run that is in it: consilium resume {folder}"
        )
    if used and read_settings(folder).digest() != experiment.digest():
        raise RunFolderError(
            f"{folder} holds a run with other settings. Resume it with its own (consilium resume {folder}), or give "
            f"another `--out`."
        )


@contextmanager
def claimed(folder: Path, experiment: Experiment, now: Mapping[str, str], resume: bool) -> Iterator[dict[str, str]]:
    """Keep other processes out of the folder, write the settings, and say when and on what the run began.

    Args:
        folder: Made if it is not there.
        experiment: Its settings.
        now: What the results rest on (data digest, code digest); the data must be those that the run began with.
        resume: Whether the folder may hold this run already.

    Raises:
        RunFolderError: As `check_folder`; another process is at work; the data have changed; the disk is full.
    """
    with locked(folder):
        check_folder(folder, experiment, resume)
        began = _read(folder)["began"] if (folder / SETTINGS).exists() else {**now, "created": _time()}
        if began["data"] != now["data"]:
            raise RunFolderError(
                f"the data are not those that the run in {folder} began with: their digest was {began['data'][:12]} "
                f"and is {now['data'][:12]}. Half a training on each is no result: put the data back, or start anew "
                f"with another `--out`."
            )
        content = {"settings": experiment.flat(), "began": began}
        write_atomic(folder / SETTINGS, json.dumps(content, indent=2, ensure_ascii=False).encode())
        yield began


def read_settings(folder: Path) -> Experiment:
    """Read the experiment of a run folder.

    Raises:
        RunFolderError: The folder is no run folder, or its settings are damaged or of another version.
    """
    try:
        return build(_read(folder)["settings"], folder)
    except ConfigError as error:
        raise RunFolderError(
            f"{folder / SETTINGS} was written by another version, or by hand: {error} Resume with the version that "
            f"began the run, or start anew in another folder."
        ) from None


def _read(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunFolderError(
            f"{folder} is no run folder: {SETTINGS} is missing. Give the folder that `consilium run` named."
        ) from None
    except OSError as error:
        raise _unusable(path, error) from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in ("settings", "began")):
        raise RunFolderError(f"{path} is damaged. Allowed is what `consilium run` wrote; start the run anew elsewhere.")
    return content


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder; the system gives it back when this process and its workers are gone, however."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        # Some network file systems have no locks on folders: there the run goes on without one.
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(
                    f"another process is at work in {folder}. One at a time may be: wait until it ends, or stop it "
                    f"(Ctrl-C there), then resume."
                ) from None
        yield
    finally:
        os.close(descriptor)


def _time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _unusable(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"{path} cannot be used as a run folder: {error.strerror}. Needed is a folder that you may write; give another."
    )
