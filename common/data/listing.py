"""Which files are images of whom: a table, where it stands, and how their pixels are read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.data.manifest import Table
from common.data.sidecar import Sidecar


@dataclass(frozen=True, slots=True)
class Listing:
    """A table with one row per image file, columns named as docs/reference/folder.md says.

    `manifest` is the file whose rows these are: paths in the table count from its folder and messages name it. `window`
    is the range of pixel values, in the file's own unit, that deeper pixels than 8 bits are scaled from; without one,
    the percentiles of each file. `keep` [rows] is False where an image is left out.
    """

    manifest: Path
    table: Table
    sidecar: Sidecar
    window: tuple[float, float] | None = None
    keep: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.table["image"])
