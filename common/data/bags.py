"""Bags of features from files, one `.npy` each, all filled up to one length; `common/items.py` tells the layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.data.thin import evenly
from common.errors import DataError

Bags = NDArray[np.float32]


def read_bags(source: str, rows: Sequence[int], files: Sequence[Path], most: int) -> Bags:
    """Read at most `most` instances of each file, evenly spaced in their order; shorter bags are filled up with zeros.

    Every bag gets `most` rows, also where all are shorter: the same everywhere, so that the share of a bag on which
    attention falls means the same at every site. Only the rows that are kept are read.

    Args:
        source: The table whose rows the files are, for messages.
        rows: Their numbers in the table, from 1; a file's name may be a patient's.
        files: `.npy` files of floats [instances, F].
        most: Rows of each bag.

    Shapes: -> float32 [N, 1 + F, most, 1].

    Raises:
        DataError: A file that is no array of floats [instances, F], or has another F than the first.
    """
    bags: Bags | None = None
    for place, (row, file) in enumerate(zip(rows, files, strict=True)):
        found = _opened(source, row, file)
        if bags is None:
            bags = np.zeros((len(files), 1 + found.shape[1], most, 1), dtype=np.float32)
        if 1 + found.shape[1] != bags.shape[1]:
            raise DataError(
                f"{source}: the instances of row {row} have {found.shape[1]} features, and those before "
                f"{bags.shape[1] - 1}. All need the same; extract them with one network."
            )
        kept = found[evenly(len(found), most)]
        bags[place, 0, : len(kept), 0] = 1
        bags[place, 1:, : len(kept), 0] = kept.T
    if bags is None:
        raise DataError(f"{source}: there is no bag. Check `data.path` and `data.classes`.")
    return bags


def _opened(source: str, row: int, file: Path) -> NDArray[np.floating]:
    """Open a file without reading it.

    Raises:
        DataError: As `read_bags`.
    """
    try:
        found: NDArray[np.floating] = np.lib.format.open_memmap(file, mode="r")  # never objects
    except Exception as error:  # numpy has no error of its own for damaged headers
        raise DataError(
            f"{source}: the features of row {row} cannot be read ({type(error).__name__}). Allowed is a `.npy` of "
            f"numbers; extract them anew."
        ) from None
    if found.ndim != 2 or found.dtype.kind != "f" or not found.size:
        raise DataError(
            f"{source}: the features of row {row} are {found.dtype} {found.shape}. Allowed are floats "
            f"[instances, features], at least one of each; extract them anew."
        )
    return found
