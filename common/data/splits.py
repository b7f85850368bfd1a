"""Train, val and test of a site, divided by patient, and whole patients up to a cap."""

import math

import numpy as np
from numpy.typing import NDArray

from common.data.base import Dataset
from common.errors import DataError
from common.seeds import derive

SPLITS = ("train", "val", "test")
VAL_SHARE = 0.15
TEST_SHARE = 0.25
FEWEST_PATIENTS = 3
Rows = NDArray[np.int64]


def split_site(dataset: Dataset, rows: Rows, site: str, seed: int) -> tuple[Rows, Rows, Rows]:
    """Divide the images of one site 60/15/25 by patient; an official division is kept.

    Patients of each worst label are divided on their own, so that train and test hold every label with two patients or
    more. The draw depends on the seed, the site's name and the patient's name, not on the order of the images. Where an
    official division has no val, a fifth of its training patients become val.

    Args:
        dataset: Holds the site's images, perhaps among others.
        rows: Which images are the site's.
        site: Its name.
        seed: `data.seed`.

    Raises:
        DataError: Fewer than three patients, or an official division without train or test here.
    """
    patients, owner = np.unique(dataset.patients[rows], return_inverse=True)
    if len(patients) < FEWEST_PATIENTS:
        raise DataError(
            f"{dataset.name}: site {site!r} has {len(patients)} patients. Train, val and test need one each, "
            f"so {FEWEST_PATIENTS} at least. Choose fewer sites or more classes, or leave the site out."
        )
    strata = _worst_labels(dataset, rows, owner, len(patients))
    keys = _keys(seed, "split", site, patients)
    if dataset.splits is None:
        parts = _divide(strata, keys)
    else:
        parts = _official(dataset, _first_of_each(dataset.splits[rows], owner, len(patients)), strata, keys, site)
    train, val, test = (rows[parts[owner] == index] for index in range(3))
    return train, val, test


def cap_site(dataset: Dataset, rows: Rows, site: str, seed: int, most: int) -> Rows:
    """Keep whole patients, drawn in the proportions of their labels and official splits, up to `most` images.

    Raises:
        DataError: Not even the first three patients fit.
    """
    if most == 0 or len(rows) <= most:
        return rows
    patients, owner, counts = np.unique(dataset.patients[rows], return_inverse=True, return_counts=True)
    strata = _worst_labels(dataset, rows, owner, len(patients))
    if dataset.splits is not None:
        strata = strata * 3 + _first_of_each(dataset.splits[rows], owner, len(patients))
    keys = _keys(seed, "cap", site, patients)
    order = np.lexsort((keys, _rank_shares(strata, keys)))
    kept = order[np.cumsum(counts[order]) <= most]
    if len(kept) < FEWEST_PATIENTS:
        raise DataError(
            f"data.max-images-per-site is {most}, which holds {len(kept)} whole patients of site {site!r}. Allowed is "
            f"at least {FEWEST_PATIENTS}; {int(counts[order[:FEWEST_PATIENTS]].sum())} images would do."
        )
    return rows[np.isin(owner, kept)]


def _divide(strata: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int8]:
    """Give each patient 0, 1 or 2; no split stays empty."""
    parts = np.zeros(len(strata), dtype=np.int8)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        members = members[np.argsort(keys[members])]
        test = _share(TEST_SHARE, len(members), fewest=2)
        val = _share(VAL_SHARE, len(members), fewest=3)
        parts[members[:test]] = 2
        parts[members[test : test + val]] = 1
    for empty in (2, 1, 0):
        if not (parts == empty).any():
            parts[_spare(parts, strata, keys)] = empty
    return parts


def _official(
    dataset: Dataset, parts: NDArray[np.int8], strata: NDArray[np.int64], keys: NDArray[np.int64], site: str
) -> NDArray[np.int8]:
    train = np.flatnonzero(parts == 0)
    if not (parts == 1).any() and len(train) > 1:
        wanted = max(1, math.floor(len(train) * VAL_SHARE / (1 - TEST_SHARE) + 0.5))
        parts[train[np.lexsort((keys[train], _rank_shares(strata[train], keys[train])))[:wanted]]] = 1
    missing = [name for index, name in enumerate(SPLITS) if not (parts == index).any()]
    if missing:
        raise DataError(
            f"{dataset.name}: the official division leaves site {site!r} without {' and '.join(missing)}. Each site "
            f"needs all three. Choose fewer or larger sites, or leave the split column out."
        )
    return parts


def _share(share: float, count: int, fewest: int) -> int:
    return max(1, math.floor(share * count + 0.5)) if count >= fewest else 0


def _spare(parts: NDArray[np.int8], strata: NDArray[np.int64], keys: NDArray[np.int64]) -> int:
    """Find a patient of the fullest (split, stratum), so that moving it takes the least away."""
    _, cell, counts = np.unique(np.stack([parts, strata]), axis=1, return_inverse=True, return_counts=True)
    members = np.flatnonzero(cell.reshape(-1) == int(counts.argmax()))
    return int(members[keys[members].argmin()])


def _worst_labels(dataset: Dataset, rows: Rows, owner: Rows, patients: int) -> NDArray[np.int64]:
    """Give the highest label of each patient; multi-label: whether there is any finding; no labels: one stratum."""
    worst = np.zeros(patients, dtype=np.int64)
    if dataset.labels is not None:
        labels = dataset.labels[rows]
        np.maximum.at(worst, owner, labels.max(axis=1).astype(np.int64) if labels.ndim == 2 else labels)
    return worst


def _first_of_each(values: NDArray[np.int8], owner: Rows, patients: int) -> NDArray[np.int8]:
    first = np.zeros(patients, dtype=np.int8)
    first[owner] = values
    return first


def _rank_shares(strata: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rank each patient inside its stratum, in (0, 1): the lowest shares, at any cut, hold all strata in proportion."""
    shares = np.empty(len(strata))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        ranks = np.argsort(np.argsort(keys[members]))
        shares[members] = (ranks + 0.5) / len(members)
    return shares


def _keys(seed: int, purpose: str, site: str, patients: NDArray[np.str_]) -> NDArray[np.int64]:
    return np.array([derive(seed, purpose, site, patient) for patient in patients.tolist()], dtype=np.int64)
