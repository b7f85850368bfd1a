"""The manifest of a hospital's folder: a CSV or Parquet table with one row per image file."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError, nearest

NAMES = ("manifest.csv", "manifest.parquet")
Table = dict[str, NDArray[np.str_]]


def find_manifest(path: Path) -> Path:
    """Give the manifest itself, or the one in a folder.

    Raises:
        DataError: None, or two.
    """
    if path.is_file():
        return path
    found = [path / name for name in NAMES if (path / name).is_file()]
    if len(found) != 1:
        raise DataError(
            f"data.path: {path} holds {len(found)} manifests. Allowed is one of {' or '.join(NAMES)}; "
            f"docs/reference/folder.md tells its columns."
        )
    return found[0]


def read_manifest(path: Path, required: tuple[str, ...]) -> Table:
    """Read all columns as text, stripped.

    Raises:
        DataError: Not readable, no row, a required column is missing or has empty cells.
    """
    try:
        table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except Exception as error:  # csv, pyarrow and text decoding each raise their own
        raise DataError(
            f"{path.name} cannot be read ({type(error).__name__}). Allowed are Parquet and UTF-8 CSV with a header."
        ) from None
    for name in required:
        if name not in table:
            raise DataError(
                f"{path.name}: there is no column {name!r}.{nearest(name, list(table))} There are: "
                f"{', '.join(table) or 'none'}."
            )
    if not len(table[required[0]]):
        raise DataError(f"{path.name} has no row. Write one for each image.")
    for name in required:
        check_filled(path, name, table[name])
    return table


def check_filled(path: Path, name: str, cells: NDArray[np.str_]) -> None:
    """Refuse empty cells.

    Raises:
        DataError: As said, with the first such row.
    """
    empty = np.flatnonzero(cells == "")
    if len(empty):
        raise DataError(
            f"{path.name}: column {name!r} is empty in {len(empty)} rows, first in row {empty[0] + 1}. Fill every row, "
            f"or leave the column out where it is optional."
        )


def files_of(manifest: Path, column: str, cells: NDArray[np.str_], rows: NDArray[np.int64]) -> list[Path]:
    """Give the files that a column names in some rows, relative to the manifest.

    Raises:
        DataError: A file that is missing or lies outside the folder, also by way of a link. Names the row, not the
            file, whose name may be a patient's.
    """
    root = manifest.parent.resolve()
    files = [(root / cell).resolve() for cell in cells[rows].tolist()]
    for row, file in zip((rows + 1).tolist(), files, strict=True):
        if not file.is_relative_to(root):
            raise DataError(
                f"{manifest.name}: the {column} of row {row} lies outside the manifest's folder. Allowed are paths "
                f"inside it; move or copy the files."
            )
        if not file.is_file():
            raise DataError(f"{manifest.name}: the {column} of row {row} is missing. Correct the path or leave it out.")
    return files


def check_no_duplicates(manifest: Path, files: list[Path]) -> None:
    """Refuse two rows of one image.

    Raises:
        DataError: As said.
    """
    again = len(files) - len(set(files))
    if again:
        raise DataError(
            f"{manifest.name}: {again} rows name an image that stands in an earlier row. Allowed is one row per image; "
            f"several findings of one image are written 'a|b'."
        )


def _read_csv(path: Path) -> Table:
    """Read a CSV whose separator is the commonest of comma, semicolon and tab in the header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        rows = list(csv.reader(file, delimiter=max(",;\t", key=header.count), strict=True))
    names = [name.strip() for name in rows[0]] if rows else []
    if len(set(names)) < len(names):
        raise ValueError("two columns of one name")
    body = [row for row in rows[1:] if any(row)]
    if any(len(row) != len(names) for row in body):
        raise ValueError("rows of unequal length")
    return {name: _column([row[index] for row in body]) for index, name in enumerate(names)}


def _read_parquet(path: Path) -> Table:
    from pyarrow import parquet  # takes half a second

    table = parquet.read_table(path)
    columns = zip(table.column_names, table.columns, strict=True)
    return {
        name: _column(["" if value is None else str(value) for value in values.to_pylist()]) for name, values in columns
    }


def _column(cells: list[str]) -> NDArray[np.str_]:
    return np.array([cell.strip() for cell in cells], dtype="U")
