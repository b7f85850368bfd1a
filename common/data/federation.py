"""One data set, divided into sites, each with patient-disjoint train, val and test images."""

import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from common.config import DataSection
from common.data import DATASETS
from common.data.base import Dataset
from common.data.choose import named
from common.data.orientation import oriented
from common.data.partition import partition
from common.data.splits import SPLITS, cap_site, split_site
from common.data.thin import thin
from common.errors import ConfigError

Role = Literal["source", "held-out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteData:
    """The images of one site; no patient stands in two of the three."""

    name: str
    role: Role
    train: Dataset
    val: Dataset
    test: Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """All sites of a run, source sites first, each group in the order of the data set's site names."""

    name: str
    sites: tuple[SiteData, ...]
    classes: tuple[str, ...]
    mask_classes: tuple[str, ...]
    channels: int
    image_size: int
    """Side in pixels; BAG_SIDE where the data are bags."""
    licence: str
    data_digest: str
    split_digest: str

    def site(self, name: str) -> SiteData:
        """Find a site by its name."""
        return next(site for site in self.sites if site.name == name)


def open_federation(settings: DataSection) -> Federation:
    """Load, resize, partition and split: the same settings give the same federation in every process.

    All sites opened in one process share the images in memory: the last data set stays loaded, whatever is held out of
    it, until its file changes or another one is opened.

    Raises:
        ConfigError: A data set, class or held-out site that is not known, or all sites held out.
        DataError: The data are not what they must be, or a site has fewer than three patients.
    """
    with _LOCK:
        divided = _divided(settings.model_copy(update={"held_out": ""}), _stamp(settings))
    names = tuple(site.name for site in divided.sites)
    held_out = {names[index] for index in named("site in data.held-out", settings.held_out, names)}
    if held_out >= set(names):
        raise ConfigError(
            f"data.held-out holds out all {len(names)} sites ({', '.join(names)}). At least one must train; name fewer."
        )
    sites = [replace(site, role="held-out" if site.name in held_out else "source") for site in divided.sites]
    return replace(divided, sites=tuple(sorted(sites, key=lambda site: site.role == "held-out")))


_LOCK = threading.Lock()
TABLES = (".csv", ".parquet", ".json", "")
"""What a table of images, patients and sites ends in; one of the benchmarks calls its own without an ending."""


@lru_cache(maxsize=1)
def _divided(settings: DataSection, stamp: tuple[int, ...]) -> Federation:
    """Do everything that the held-out sites do not change."""
    dataset: Dataset = oriented(DATASETS.load(settings.name)(settings), settings.orientation)
    dataset = partition(thin(dataset.check(), settings.max_images_per_patient), settings)
    sites = tuple(_site(dataset, index, settings) for index in range(len(dataset.site_names)))
    return Federation(
        name=dataset.name,
        sites=sites,
        classes=dataset.classes,
        mask_classes=dataset.mask_classes,
        channels=dataset.channels,
        image_size=dataset.side,
        licence=dataset.licence,
        data_digest=dataset.digest(),
        split_digest=_split_digest(sites),
    )


def _site(dataset: Dataset, index: int, settings: DataSection) -> SiteData:
    name = dataset.site_names[index]
    rows = np.flatnonzero(dataset.sites == index)
    rows = cap_site(dataset, rows, name, settings.seed, settings.max_images_per_site)
    train, val, test = (dataset.subset(part) for part in split_site(dataset, rows, name, settings.seed))
    return SiteData(name=name, role="source", train=train, val=val, test=test)


def _split_digest(sites: tuple[SiteData, ...]) -> str:
    """SHA-256 over who stands where: site, split and sorted patients."""
    table = [
        (site.name, split, sorted(set(getattr(site, split).patients.tolist()))) for site in sites for split in SPLITS
    ]
    return hashlib.sha256(json.dumps(table).encode()).hexdigest()


def _stamp(settings: DataSection) -> tuple[int, ...]:
    """Sizes and times of the file or folder and of the tables in it, so that changed data are loaded anew."""
    if not settings.path:
        return ()
    path = Path(settings.path).expanduser()
    stamp: list[int] = []
    with suppress(OSError):
        tables = sorted(each for each in path.iterdir() if each.suffix in TABLES) if path.is_dir() else []
        for each in (path, *tables):
            status = each.stat()
            stamp += [status.st_size, status.st_mtime_ns]
    with suppress(OSError):
        status = path.with_suffix(".json").stat()
        stamp += [status.st_size, status.st_mtime_ns]
    return tuple(stamp)
