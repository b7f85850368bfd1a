"""Partitions: the sites of the data, or sites made from it by label skew, quantity skew or scanner shift."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.config import DataSection
from common.data.base import Dataset
from common.data.phantom_scanner import SCANNERS, apply_scanner, quantise
from common.data.splits import FEWEST_PATIENTS, SPLITS
from common.errors import ConfigError, DataError
from common.items import need_images
from common.seeds import generator

Groups = NDArray[np.int64]
"""[patients]: a whole number for each patient."""


def partition(dataset: Dataset, settings: DataSection) -> Dataset:
    """Give the data set with the sites that `data.partition` asks for; a patient is never divided.

    Where there is an official division, each of its parts is shared out on its own, so that every site gets of each.

    Raises:
        DataError: Too few patients for so many sites, or labels are needed and absent.
        ConfigError: More sites than scanners, or scanners for bags.
    """
    if settings.partition == "natural":
        return _without_empty_sites(dataset)
    if settings.partition == "scanner":
        need_images("'data.partition' = 'scanner'", dataset.side)
    names, owner = _patients(dataset)
    parts = np.zeros(len(names), dtype=np.int64)
    if dataset.splits is not None:
        parts[owner] = dataset.splits
    needs = _needs(dataset, parts, settings.partition_sites)
    if settings.partition == "scanner":
        groups = _equally(parts, settings)
    else:
        strata = (
            _worst_labels(dataset, owner, len(names)) if settings.partition == "dirichlet" else np.zeros_like(parts)
        )
        groups = _repaired(_skewed(strata, parts, settings), parts, needs, settings)
    made = replace(
        dataset,
        sites=groups[owner],
        site_names=tuple(f"site-{index + 1}" for index in range(settings.partition_sites)),
        patients=names[owner],
    )
    return _scan(made, settings) if settings.partition == "scanner" else made


def _needs(dataset: Dataset, parts: Groups, sites: int) -> dict[int, int]:
    """Say how many patients of each part every site must have: three, or one of each official part.

    Raises:
        DataError: There are not so many.
    """
    if dataset.splits is None:
        needs = {0: FEWEST_PATIENTS}
    else:
        needs = {int(part): 1 for part in np.unique(parts)}
        needs[0] = 1 if 1 in needs else 2  # without an official val, train gives some away
    for part, need in needs.items():
        there = int((parts == part).sum())
        if there < need * sites:
            which = "" if dataset.splits is None else f" of the official {SPLITS[part]}"
            raise DataError(
                f"{dataset.name}: {there} patients{which} cannot make {sites} sites of at least {need}. Allowed is "
                f"data.partition-sites up to {there // need}."
            )
    return needs


def _worst_labels(dataset: Dataset, owner: Groups, patients: int) -> Groups:
    """Give the highest label of each patient; of several findings the first, plus one."""
    if dataset.labels is None:
        raise DataError(f"{dataset.name}: data.partition dirichlet skews labels and there are none. Choose quantity.")
    labels = dataset.labels
    values = labels if labels.ndim == 1 else labels.argmax(axis=1) + labels.any(axis=1)
    worst = np.zeros(patients, dtype=np.int64)
    np.maximum.at(worst, owner, values.astype(np.int64))
    return worst


def _skewed(strata: Groups, parts: Groups, settings: DataSection) -> Groups:
    """Divide the patients of each stratum among the sites by shares drawn from Dir(α), the same in every part.

    With labels as strata, sites differ in their labels; with one stratum, in their size.

    Source: Li et al. 2022 (arXiv:2102.02079), section on partitions: each label's sites are drawn from Dir(α), and so
    are the sites' sizes; ours draws patients, not images.
    """
    rng = generator(settings.seed, "partition", settings.partition)
    groups = np.empty(len(strata), dtype=np.int64)
    for stratum in np.unique(strata):
        shares = rng.dirichlet(np.full(settings.partition_sites, settings.partition_alpha))
        for part in np.unique(parts):
            members = rng.permutation(np.flatnonzero((strata == stratum) & (parts == part)))
            cuts = np.floor(np.cumsum(shares)[:-1] * len(members) + 0.5)
            groups[members] = np.searchsorted(cuts, np.arange(len(members)), side="right")
    return groups


def _repaired(groups: Groups, parts: Groups, needs: dict[int, int], settings: DataSection) -> Groups:
    """Move single patients from the largest site to those that lack some: the smallest change that serves."""
    groups = groups.copy()
    rng = generator(settings.seed, "partition", "repair")
    for part, need in needs.items():
        counts = np.bincount(groups[parts == part], minlength=settings.partition_sites)
        for site in np.flatnonzero(counts < need):
            while counts[site] < need:
                largest = int(counts.argmax())
                groups[rng.choice(np.flatnonzero((groups == largest) & (parts == part)))] = site
                counts[largest] -= 1
                counts[site] += 1
    return groups


def _equally(parts: Groups, settings: DataSection) -> Groups:
    """Divide patients equally: sites will differ by their scanner alone."""
    if settings.partition_sites > len(SCANNERS):
        raise ConfigError(
            f"data.partition-sites is {settings.partition_sites} and there are {len(SCANNERS)} scanners "
            f"({', '.join(SCANNERS)}). Allowed is up to {len(SCANNERS)}."
        )
    shuffled = generator(settings.seed, "partition", "scanner").permutation(len(parts))
    groups = np.empty(len(parts), dtype=np.int64)
    groups[shuffled[np.argsort(parts[shuffled], kind="stable")]] = np.arange(len(parts)) % settings.partition_sites
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
