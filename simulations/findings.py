"""Writes what a study of a finished run found: tables as CSV, one picture, and JSON that programs can read."""

import csv
import io
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from simulations.results import write_whole, writing
from simulations.studies import FILE

Rows = list[dict[str, Any]]
DPI = 160


def write_findings(out: Path, tables: Mapping[str, Rows], pictures: Mapping[str, Figure]) -> None:
    """Write `NAME.csv` for every table, six significant digits, and `NAME.png`; every file whole or not at all.

    Raises:
        RunFolderError: The folder cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for table, rows in tables.items():
            write_whole(out / f"{table}.csv", _csv(rows))
        for name, figure in pictures.items():
            drawn = io.BytesIO()
            figure.savefig(drawn, format="png", dpi=DPI)
            write_whole(out / f"{name}.png", drawn.getvalue())


def write_table(path: Path, rows: Rows) -> None:
    """Write one CSV file, six significant digits, whole or not at all.

    Raises:
        RunFolderError: The folder cannot be written.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _csv(rows))


def write_study(out: Path, of: str, body: Mapping[str, Any]) -> None:
    """Write `study.json`, which the report of the run shows where `out` lies in the run's folder.

    `of` is the run's `identity`.

    Raises:
        RunFolderError: The folder cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_finite({"run": of, **body}), ensure_ascii=False, allow_nan=False)
        write_whole(out / FILE, text.encode() + b"\n")


def print_json(body: Mapping[str, Any]) -> None:
    """Print one JSON object; what is not finite is null, which JSON can say."""
    sys.stdout.write(json.dumps(_finite(body), allow_nan=False) + "\n")


def _csv(rows: Rows) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
    )
    return text.getvalue().encode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
