"""The study's record: one row per finished cell, appended as it ends and never changed, and its resampled scores."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load, save

from common.errors import RunFolderError
from common.journal import Journal
from simulations.adaptation.cells import Cell
from simulations.adaptation.scores import Resampled
from simulations.results import write_whole, writing

Row = dict[str, Any]
RECORD, FOLDER = "rows.jsonl", "cells"


class Record:
    """Rows of one study in one folder: `rows.jsonl`, chained by hashes, and a file per cell.

    Args:
        out: Folder; made if it is not there.
        basis: What every row rests on (data, run, resamples); rows of another basis are not mixed with these.

    Raises:
        RunFolderError: The folder holds a study of another basis, is damaged, or cannot be written.
    """

    def __init__(self, out: Path, basis: Mapping[str, Any]) -> None:
        with writing(out):
            (out / FOLDER).mkdir(parents=True, exist_ok=True)
        self._folder = out / FOLDER
        self._journal = Journal(out / RECORD)
        self._rows: dict[str, Row] = {}
        known = list(self._journal)
        if not known:
            self._journal.append({"basis": dict(basis)})
        elif known[0].get("basis") != dict(basis):
            raise RunFolderError(
                f"{out} holds a study of another run, other data or another number of resamples. Give another --out."
            )
        for entry in known[1:]:
            self._rows[entry["key"]] = _undefined(entry["row"])

    def has(self, cell: Cell, code: str = "") -> bool:
        """Say whether a cell is finished; one that other code could not run may be tried again."""
        row = self._rows.get(cell.key)
        return row is not None and (not row["reason"] or code in ("", row["code"]))

    def row(self, cell: Cell) -> Row:
        """Give a finished cell's row."""
        return self._rows[cell.key]

    def resampled(self, cell: Cell) -> Resampled:
        """Give a finished cell's scores on every resample; none where it has no scores.

        Raises:
            RunFolderError: The file is gone or damaged.
        """
        if self.row(cell)["reason"]:
            return {}
        path = self._folder / f"{cell.key}.safetensors"
        try:
            return load(path.read_bytes())
        except Exception:  # the library has an error class of its own for every kind of damage
            raise RunFolderError(
                f"{path} is missing or damaged, and {RECORD} says that it was written. Give another --out, or put the "
                f"file back."
            ) from None

    def keep(self, cell: Cell, resampled: Resampled) -> None:
        """Write a cell's resampled scores; before its row, which says that they are there."""
        with writing(self._folder):
            write_whole(self._folder / f"{cell.key}.safetensors", save(resampled))

    def append(self, cell: Cell, row: Row) -> None:
        """Append a row; a cell that has one keeps it, unless it had no scores.

        Raises:
            RunFolderError: The disk is full.
        """
        if not self.has(cell, row["code"]):
            self._journal.append({"key": cell.key, "row": _null(row)})
            self._rows[cell.key] = row


def _null(row: Row) -> Row:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _undefined(row: Row) -> Row:
    return {name: math.nan if value is None else value for name, value in row.items()}
