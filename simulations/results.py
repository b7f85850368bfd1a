"""The results of a run: its record, tables and overlays; the run folder that keeps them."""

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from common.errors import ConsiliumError, DataError, RunFolderError
from simulations.overlay import Overlay, read_overlays, write_overlays
from simulations.studies import read_studies
from simulations.tables import TABLES, check_table, make_table

__all__ = ["TABLES", "Overlay", "Results", "load_results", "make_table", "save", "write_whole", "writing"]

FORMAT = 1
FEDERATED = "federated"
ALL_SOURCES, WORST_SOURCE, HELD_OUT_MEAN = "all sources (mean)", "worst source", "held-out (mean)"
SUMMARIES = (HELD_OUT_MEAN, ALL_SOURCES, WORST_SOURCE)
"""Rows of the headline table that stand for several sites."""

RECORD: dict[str, tuple[type, str]] = {
    "name": (str, "what the run is called"),
    "run": (str, "identifier of the run"),
    "created": (str, "start, UTC, ISO 8601"),
    "finished": (str, "end, UTC, ISO 8601"),
    "seeds": (list, "seeds that were run"),
    "config": (dict, "every setting, flat"),
    "config_digest": (str, "SHA-256 of the settings"),
    "code": (dict, "version, commit, digest"),
    "data": (dict, "name, digest, split_digest, licence, classes, mask_classes, image_size, channels, sites"),
    "environment": (dict, "python, torch, flwr, platform, cpus"),
    "privacy": (str, "name of the privacy mechanism"),
    "task": (str, "name of the task"),
    "metrics": (list, "names of the metrics, the primary one first"),
    "methods": (dict, "method to one line of meaning, in the order to show"),
    "seconds": (dict, "wall time of training, evaluation and report"),
    "notes": (list, "what a reader should know"),
}
"""Keys of the record, which becomes `run.json`."""


@dataclass(kw_only=True)
class Results:
    """All that a run found out. Tables that are not given are empty; `studies` were made of the run after it.

    Raises:
        DataError: A record's key is missing or of another type, or a table's column is.
        UnknownNameError: A table has no place in `TABLES`.
    """

    record: dict[str, Any]
    tables: dict[str, pa.Table] = field(default_factory=dict)
    overlays: list[Overlay] = field(default_factory=list)
    folder: Path | None = None
    studies: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, (kind, meaning) in RECORD.items():
            if not isinstance(self.record.get(key), kind):
                found = type(self.record[key]).__name__ if key in self.record else "missing"
                raise DataError(f"record key {key!r} ({meaning}) is {found}. Allowed is {kind.__name__}; set it.")
        if not self.record["metrics"]:
            raise DataError("record key 'metrics' is empty. The primary metric must stand first; name it.")
        given = {name: check_table(name, table) for name, table in self.tables.items()}
        self.tables = {name: given[name] if name in given else make_table(name) for name in TABLES}

    @property
    def primary(self) -> str:
        """Name of the primary metric."""
        return str(self.record["metrics"][0])

    @property
    def methods(self) -> list[str]:
        """Names of the methods in the order to show."""
        return list(self.record["methods"])

    def sites(self, role: str | None = None) -> list[str]:
        """Names of the sites, of one role (source, held-out) or all, in the record's order."""
        return [str(site["name"]) for site in self.record["data"]["sites"] if role in (None, site["role"])]

    def in_order(self, names: set[str]) -> list[str]:
        """Put sites in the record's order; those that it does not name come last, sorted."""
        return [site for site in self.sites() if site in names] + sorted(names - set(self.sites()))

    def rows(self, table: str, **equal: Any) -> list[dict[str, Any]]:
        """Rows of a table whose columns equal the given values, in the table's order."""
        rows: list[dict[str, Any]] = self.tables[table].to_pylist()
        return [row for row in rows if all(row[key] == value for key, value in equal.items())]


def save(results: Results, folder: Path) -> Path:
    """Write the run folder: `tables/*.csv` and `.parquet`, `overlays.npz` and, last, `run.json`.

    Every file appears whole or not at all; a folder without `run.json` is an unfinished run.

    Raises:
        RunFolderError: The folder cannot be written (no permission, no space).
    """
    digests: dict[str, str] = {}
    with writing(folder):
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        for name, table in results.tables.items():
            for path, content in _encoded(name, table):
                digests[path] = write_whole(folder / path, content)
        pictures = io.BytesIO()
        write_overlays(results.overlays, pictures)
        digests["overlays.npz"] = write_whole(folder / "overlays.npz", pictures.getvalue())
        record = {"format": FORMAT, **_plain(results.record), "files": digests}
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(folder / "run.json", text.encode() + b"\n")
    results.folder = folder
    return folder


def load_results(folder: Path) -> Results:
    """Read a run folder that `save` wrote.

    Raises:
        RunFolderError: The folder is missing, is no run folder, is damaged, or was written by a newer version.
    """
    record = _read_record(folder)
    digests = record.pop("files")
    del record["format"]
    try:
        tables = {}
        for name in TABLES:
            content = _read(folder, f"tables/{name}.parquet", digests)
            tables[name] = pyarrow.parquet.read_table(io.BytesIO(content))
        overlays = read_overlays(io.BytesIO(_read(folder, "overlays.npz", digests)))
        studies = read_studies(folder, record)
        return Results(record=record, tables=tables, overlays=overlays, folder=folder, studies=studies)
    except RunFolderError:
        raise
    except (ConsiliumError, OSError, ValueError, KeyError, TypeError, pa.ArrowException, zipfile.BadZipFile) as error:
        raise RunFolderError(
            f"{folder} is damaged: {error}. A whole run folder is needed; copy it anew or run the experiment again."
        ) from None


def _read_record(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is not there. Allowed is the folder of a finished run; check the path.")
    path = folder / "run.json"
    if not path.is_file():
        raise RunFolderError(
            f"{folder} holds no run.json. Allowed is the folder of a finished run; finish the run with --resume, or "
            f"give the folder that `consilium run` named."
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error}. Copy it anew or run the experiment again.") from None
    if not isinstance(record, dict) or not isinstance(record.get("files"), dict) or "format" not in record:
        raise RunFolderError(f"{path} is no record of a run. Give the folder that `consilium run` named.")
    if record["format"] != FORMAT:
        raise RunFolderError(
            f"{path} has format {record['format']}. This version reads {FORMAT}; use the version that wrote it."
        )
    return record


def _read(folder: Path, path: str, digests: Mapping[str, str]) -> bytes:
    """Read a file of the run folder and compare its digest, so that a damaged table is never shown as a result."""
    try:
        content = (folder / path).read_bytes()
    except OSError:
        raise RunFolderError(
            f"{folder} is damaged: {path} is missing. Copy the whole folder anew or run the experiment again."
        ) from None
    if hashlib.sha256(content).hexdigest() != digests.get(path):
        raise RunFolderError(
            f"{folder} is damaged: {path} is not what run.json says was written. Copy the folder anew or run the "
            f"experiment again."
        )
    return content


def _encoded(name: str, table: pa.Table) -> Iterator[tuple[str, bytes]]:
    csv, parquet = io.BytesIO(), io.BytesIO()
    pyarrow.csv.write_csv(table, csv)
    pyarrow.parquet.write_table(table, parquet)
    yield f"tables/{name}.csv", csv.getvalue()
    yield f"tables/{name}.parquet", parquet.getvalue()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into words.

    Raises:
        RunFolderError: No permission, no space, or a file stands where a folder must.
    """
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be written: {error.strerror or error}. Free space, or give another --out."
        ) from None


def write_whole(path: Path, content: bytes) -> str:
    """Write a file so that a crash leaves the old one or the new one; give its SHA-256."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return hashlib.sha256(content).hexdigest()


def _plain(value: Any) -> Any:
    """Turn NumPy numbers into Python's and what is not finite into null, which JSON can say."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
