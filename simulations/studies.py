"""Studies that were made of a run after it: what they found lies beside it, for its report to show."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import RunFolderError

STUDIES = ("corruptions",)
"""Folders in a run folder, one per study that its report shows."""
FILE = "study.json"


def identity(record: Mapping[str, Any]) -> str:
    """Name one training and judging of one experiment: another run in the same folder ends at another time."""
    return f"{record['config_digest']} {record['finished']}"


def read_studies(folder: Path, record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read the studies that were made of this very run; those of a run that was here before it are passed over.

    Raises:
        RunFolderError: A study's file is damaged.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in STUDIES:
        path = folder / name / FILE
        if not path.is_file():
            continue
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            of = body["run"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(
                f"{path} is damaged: {error}. Make the study again with `consilium study {name}`, or delete its folder."
            ) from None
        if of == identity(record):
            found[name] = body
    return found
