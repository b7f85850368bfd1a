"""At most so many images of each patient, evenly spaced: neighbouring slices and patches tell nearly the same."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.base import Dataset

Rows = NDArray[np.int64]


def evenly(count: int, most: int) -> Rows:
    """Choose `most` of `count` positions, each in the middle of an equal share of them; 0 chooses all."""
    if most == 0 or count <= most:
        return np.arange(count)
    return (2 * np.arange(most) + 1) * count // (2 * most)


def thinned(sites: NDArray[Any], patients: NDArray[np.str_], most: int) -> Rows:
    """Choose at most `most` rows of each patient of a site, evenly spaced in their order; order stays; 0 chooses all.

    Shapes: sites [N], patients [N] -> positions [up to N], ascending.
    """
    if most == 0 or len(patients) <= most:
        return np.arange(len(patients))
    _, site = np.unique(sites, return_inverse=True)
    _, name = np.unique(patients, return_inverse=True)
    owner = site * (int(name.max()) + 1) + name
    order = np.argsort(owner, kind="stable")
    starts = np.flatnonzero(np.diff(owner[order], prepend=-1))
    groups = np.split(order, starts[1:])
    return np.sort(np.concatenate([group[evenly(len(group), most)] for group in groups]))


def thin(dataset: Dataset, most: int) -> Dataset:
    """Keep at most `most` images of each patient, as `thinned` chooses."""
    if most == 0:
        return dataset
    return dataset.subset(thinned(dataset.sites, dataset.patients, most))
