"""Partitions: the sites of the data, or sites made from it by label skew, quantity skew or scanner shift."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.config import DataSection
from common.data.base import Dataset
from common.data.phantom_scanner import SCANNERS, apply_scanner, quantise
from common.data.splits import FEWEST_PATIENTS
from common.errors import ConfigError, DataError
from common.seeds import generator

Groups = NDArray[np.int64]
"""[patients]: the made site of each patient."""


def partition(dataset: Dataset, settings: DataSection) -> Dataset:
    """Give the data set with the sites that `data.partition` asks for; a patient is never divided.

    Raises:
        DataError: Too few patients for so many sites, or labels are needed and absent.
        ConfigError: More sites than scanners.
    """
    if settings.partition == "natural":
        return _without_empty_sites(dataset)
    names, owner = _patients(dataset)
    sites = settings.partition_sites
    if len(names) < FEWEST_PATIENTS * sites:
        raise DataError(
            f"{dataset.name}: {len(names)} patients cannot make {sites} sites of at least {FEWEST_PATIENTS}. Allowed "
            f"is data.partition-sites up to {len(names) // FEWEST_PATIENTS}."
        )
    groups = _MADE[settings.partition](dataset, owner, len(names), settings)
    made = replace(
        dataset,
        sites=groups[owner],
        site_names=tuple(f"site-{index + 1}" for index in range(sites)),
        patients=names[owner],
    )
    return _scan(made, settings) if settings.partition == "scanner" else made


def _by_label(dataset: Dataset, owner: Groups, patients: int, settings: DataSection) -> Groups:
    """Divide the patients of each worst label by shares drawn from Dir(α).

    Source: Hsu, Qi and Brown 2019 (arXiv:1909.06335) draw each site's labels from Dir(α); the common variant here draws
    each label's sites, as in Li et al. 2022 (arXiv:2102.02079), §4, with the patient for the image.
    """
    if dataset.labels is None:
        raise DataError(f"{dataset.name}: data.partition dirichlet skews labels and there are none. Choose quantity.")
    worst = np.full(patients, -1, dtype=np.int64)
    values = dataset.labels if dataset.labels.ndim == 1 else dataset.labels.argmax(axis=1) + dataset.labels.any(axis=1)
    np.maximum.at(worst, owner, values.astype(np.int64))
    rng = generator(settings.seed, "partition", "dirichlet")
    groups = np.empty(patients, dtype=np.int64)
    for label in np.unique(worst):
        members = rng.permutation(np.flatnonzero(worst == label))
        groups[members] = _dealt(len(members), settings, rng)
    return _at_least_three(groups, settings)


def _by_quantity(dataset: Dataset, owner: Groups, patients: int, settings: DataSection) -> Groups:
    """Divide all patients by shares drawn from Dir(α): sites differ in size, not in kind."""
    rng = generator(settings.seed, "partition", "quantity")
    groups = np.empty(patients, dtype=np.int64)
    groups[rng.permutation(patients)] = _dealt(patients, settings, rng)
    return _at_least_three(groups, settings)


def _equally(dataset: Dataset, owner: Groups, patients: int, settings: DataSection) -> Groups:
    """Divide patients equally: sites will differ by their scanner alone."""
    if settings.partition_sites > len(SCANNERS):
        raise ConfigError(
            f"data.partition-sites is {settings.partition_sites} and there are {len(SCANNERS)} scanners "
            f"({', '.join(SCANNERS)}). Allowed is up to {len(SCANNERS)}."
        )
    rng = generator(settings.seed, "partition", "scanner")
    groups = np.empty(patients, dtype=np.int64)
    groups[rng.permutation(patients)] = np.arange(patients) % settings.partition_sites
    return groups


_MADE: dict[str, Callable[[Dataset, Groups, int, DataSection], Groups]] = {
    "dirichlet": _by_label,
    "quantity": _by_quantity,
    "scanner": _equally,
}


def _dealt(count: int, settings: DataSection, rng: np.random.Generator) -> Groups:
    shares = rng.dirichlet(np.full(settings.partition_sites, settings.partition_alpha))
    cuts = np.floor(np.cumsum(shares)[:-1] * count + 0.5).astype(np.int64)
    return np.searchsorted(cuts, np.arange(count), side="right").astype(np.int64)


def _at_least_three(groups: Groups, settings: DataSection) -> Groups:
    """Move single patients from the largest site to those with fewer than three, the smallest change that serves."""
    groups = groups.copy()
    rng = generator(settings.seed, "partition", "repair")
    counts = np.bincount(groups, minlength=settings.partition_sites)
    for site in np.flatnonzero(counts < FEWEST_PATIENTS):
        while counts[site] < FEWEST_PATIENTS:
            largest = int(counts.argmax())
            groups[rng.choice(np.flatnonzero(groups == largest))] = site
            counts[largest] -= 1
            counts[site] += 1
    return groups


def _scan(dataset: Dataset, settings: DataSection) -> Dataset:
    whole = dataset.images.dtype == np.uint8
    images = dataset.images.astype(np.uint8) if whole else quantise(dataset.images.astype(np.float32))
    names = tuple(SCANNERS)[: settings.partition_sites]
    for index, name in enumerate(names):
        rows = np.flatnonzero(dataset.sites == index)
        rng = generator(settings.seed, "partition", "scanner", name)
        images[rows] = apply_scanner(images[rows], SCANNERS[name], rng)
    return replace(dataset, images=images, site_names=names)


def _patients(dataset: Dataset) -> tuple[NDArray[np.str_], Groups]:
    """Name all patients apart: equal names at two sites are two patients."""
    if len(dataset.site_names) == 1:
        names, owner = np.unique(dataset.patients, return_inverse=True)
        return names, owner
    sites = np.array(dataset.site_names, dtype="U")[dataset.sites]
    names, owner = np.unique(np.char.add(np.char.add(sites, "/"), dataset.patients), return_inverse=True)
    return names, owner


def _without_empty_sites(dataset: Dataset) -> Dataset:
    present = np.unique(dataset.sites)
    if len(present) == len(dataset.site_names):
        return dataset
    names = tuple(dataset.site_names[index] for index in present)
    return replace(dataset, sites=np.searchsorted(present, dataset.sites).astype(np.int64), site_names=names)
