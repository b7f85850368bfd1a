"""One data set, divided into sites, each with patient-disjoint train, val and test images."""

from dataclasses import dataclass
from typing import Literal

from common.config import DataSection
from common.data.base import Dataset

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
    licence: str
    data_digest: str
    split_digest: str

    def site(self, name: str) -> SiteData:
        """Find a site by its name."""
        return next(site for site in self.sites if site.name == name)


def open_federation(settings: DataSection) -> Federation:
    """Load, resize, partition and split: the same settings give the same federation in every process."""
    raise NotImplementedError(settings.name)
