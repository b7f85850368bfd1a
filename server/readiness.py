"""Is a run ready: settings, parts, folder."""

import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

from common.attention import ATTENTION
from common.config import flatten, load_run_config
from common.data import DATASETS
from common.errors import ConfigError, RunFolderError
from common.models import MODELS
from common.tasks import TASKS
from server.checkpoint import load_checkpoint
from server.strategies import STRATEGIES


def check_run(path: Path | None) -> dict[str, Any]:
    """Check the settings in a TOML file over the defaults, and that everything they name exists.

    Raises:
        ConfigError: No such file, no valid TOML, unknown keys or names, values out of range.
        RunFolderError: `out` holds another run or a damaged checkpoint.
    """
    config = load_run_config(flatten(_read(path)) if path else {})
    for registry, name in (
        (DATASETS, config.data.name),
        (MODELS, config.model.name),
        (TASKS, config.task.name),
        (STRATEGIES, config.strategy.name),
    ):
        registry.load(name)
    if config.model.attention not in ("", "none"):
        ATTENTION.load(config.model.attention)
    folder = Path(config.out) if config.out else None
    checkpoint = load_checkpoint(folder, config.digest()) if folder else None
    return {
        "config digest": config.digest(),
        "rounds": config.rounds,
        "strategy": config.strategy.name,
        "model": config.model.name,
        "task": config.task.name,
        "out": config.out or "(in memory only)",
        "finished rounds": checkpoint.round if checkpoint else 0,
        "free GiB": round(shutil.disk_usage(_existing(folder or Path())).free / 2**30, 1),
        "privacy": config.protection,
    }


def _existing(folder: Path) -> Path:
    """Find where a folder will lie; refuse one that cannot be made or written.

    Raises:
        RunFolderError: A file stands in its place, or this user may not write there.
    """
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise RunFolderError(
            f"setting 'out' is {folder}, and {place} is no folder that this user may write. Choose another."
        )
    return place


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the settings file {path} cannot be read: {error.strerror}. Give the path of a TOML."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Correct that line.") from None
