"""What the public benchmarks share: a folder of the user's own, and tables that say who stands where."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.config import DataSection
from common.data.manifest import Table, read_manifest
from common.errors import ConfigError, DataError

PAGE = "docs/reference/benchmarks.md"


def benchmark_folder(settings: DataSection) -> Path:
    """Give the folder that `data.path` names.

    Raises:
        ConfigError: No path.
        DataError: No such folder.
    """
    if not settings.path:
        raise ConfigError(
            f"data.path is empty. The {settings.name} data set needs the folder that you downloaded; {PAGE} tells how."
        )
    root = Path(settings.path).expanduser()
    if not root.is_dir():
        raise DataError(f"data.path: there is no folder {root}. Give the folder of {settings.name}; {PAGE} tells how.")
    return root


def benchmark_table(root: Path, name: str, required: tuple[str, ...]) -> tuple[Path, Table]:
    """Read a table of the benchmark: its path, and its columns as text.

    Raises:
        DataError: It is not there, cannot be read, or lacks a column.
    """
    path = root / name
    if not path.is_file():
        raise DataError(f"data.path: {root} holds no {name}. Put that file there; {PAGE} tells where to find it.")
    return path, read_manifest(path, required)


def translated(source: str, column: str, cells: NDArray[np.str_], words: Mapping[str, str]) -> NDArray[np.str_]:
    """Put the benchmark's own codes into words.

    Raises:
        DataError: A code that has no word.
    """
    unknown = sorted(set(cells.tolist()) - set(words))
    if unknown:
        raise DataError(
            f"{source}: column {column!r} holds {unknown[0]!r}. Allowed are {', '.join(words)}. Copy the file anew."
        )
    return np.array([words[cell] for cell in cells.tolist()], dtype="U")


def fold_of_centre(source: str, column: str, folds: NDArray[np.str_], centres: NDArray[np.str_]) -> NDArray[np.str_]:
    """Take train or test out of FLamby's `train_3`, where 3 is the centre.

    Raises:
        DataError: Another form, or another centre than the row's.
    """
    named: list[str] = folds.tolist()
    parts = [fold.partition("_") for fold in named]
    for row, ((split, _, centre), wanted) in enumerate(zip(parts, centres.tolist(), strict=True), 1):
        if split not in ("train", "test") or centre != wanted:
            raise DataError(
                f"{source}: column {column!r} holds {named[row - 1]!r} in row {row}, whose centre is {wanted!r}. "
                f"Allowed are train_{wanted} and test_{wanted}. Copy the file anew."
            )
    return np.array([split for split, _, _ in parts], dtype="U")
