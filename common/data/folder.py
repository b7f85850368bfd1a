"""A hospital's own images with a manifest: docs/reference/folder.md tells how to lay them out."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.config import DataSection
from common.data.archive_columns import default_mask_classes
from common.data.base import Dataset
from common.data.choose import PATIENT_COLUMNS, Labels, choose_classes, column, indices, patients_of
from common.data.folder_files import read_files
from common.data.listing import Listing
from common.data.manifest import Table, check_filled, find_manifest, read_manifest
from common.data.sidecar import Sidecar, read_sidecar, short_names
from common.data.thin import thinned
from common.errors import ConfigError, DataError

SPLIT_NAMES = {"train": 0, "val": 1, "test": 2, "0": 0, "1": 1, "2": 2}


def folder(settings: DataSection) -> Dataset:
    """Open the folder, or the manifest, that `data.path` names.

    Raises:
        ConfigError: No path, or a class that is not known.
        DataError: A manifest or file that is not what docs/reference/folder.md asks for.
    """
    if not settings.path:
        raise ConfigError("data.path is empty. The folder data set needs the path of a folder with a manifest.")
    manifest = find_manifest(Path(settings.path).expanduser())
    table = read_manifest(manifest, ("image", _patient_column(settings), "site"))
    return open_listed(Listing(manifest, table, read_sidecar(manifest.with_suffix(".json"))), settings)


def open_listed(listing: Listing, settings: DataSection) -> Dataset:
    """Open the images that a table lists, with its columns named as docs/reference/folder.md says.

    Raises:
        ConfigError: A class that is not known.
        DataError: Cells or files that are not what docs/reference/folder.md asks for.
    """
    manifest, sidecar = listing.manifest, listing.sidecar
    rows, labels, classes = _labels(manifest, listing.table, sidecar, settings)
    names = patients_of(listing.table, len(listing), _patient_column(settings), settings.patient_pattern)
    kept = np.arange(len(rows)) if listing.keep is None else np.flatnonzero(listing.keep[rows])
    kept = kept[thinned(listing.table["site"][rows[kept]], names[rows[kept]], settings.max_images_per_patient)]
    rows, labels = rows[kept], None if labels is None else labels[kept]
    images, masks, owner = read_files(listing, rows, settings)
    table = {name: cells[rows] for name, cells in listing.table.items()}
    places = np.char.replace(table["site"], ",", ";")
    sites, site_names = indices(places, sidecar.names("centres"), f"{manifest.name}: column 'site'")
    splits = _splits(manifest, table)
    return Dataset(
        name=sidecar.text("name") or manifest.parent.name,
        images=images,
        labels=None if labels is None else labels[owner],
        masks=masks,
        patients=names[rows][owner],
        sites=sites[owner],
        site_names=short_names(site_names),
        splits=None if splits is None else splits[owner],
        classes=classes,
        mask_classes=() if masks is None else sidecar.names("mask_classes") or default_mask_classes(masks),
        licence=sidecar.text("licence"),
    ).check()


def _patient_column(settings: DataSection) -> str:
    return settings.patient if settings.patient != "auto" else PATIENT_COLUMNS[0]


def _labels(
    manifest: Path, table: Table, sidecar: Sidecar, settings: DataSection
) -> tuple[NDArray[np.int64], Labels | None, tuple[str, ...]]:
    """Give the rows to load, their labels and the classes; rows of other classes are not even opened."""
    everything = np.arange(len(table["image"]))
    name = "label" if settings.label == "auto" else settings.label
    labels: Labels | None = None
    classes: tuple[str, ...] = ()
    if name in table or settings.label != "auto":
        labels, classes = _encoded(manifest, name, column(table, "label", name), sidecar)
    if not settings.classes.strip():
        return everything, labels, classes
    return choose_classes(manifest.name, labels, classes, settings.classes)


def _encoded(manifest: Path, name: str, cells: NDArray[np.str_], sidecar: Sidecar) -> tuple[Labels, tuple[str, ...]]:
    """Read class names, indices, or findings `a|b`: where a row has a bar or the sidecar says `"multilabel": true`."""
    classes = sidecar.names("classes")
    what = f"{manifest.name}: column {name!r}"
    cells = np.char.replace(cells, ",", ";")
    texts = cells.tolist()
    if sidecar.content.get("multilabel") is True or any("|" in text for text in texts):
        found = [[part.strip() for part in text.split("|") if part.strip()] for text in texts]
        parts = np.array([part for findings in found for part in findings], dtype="U")
        index, classes = indices(parts, classes, what)
        labels = np.zeros((len(texts), len(classes)), dtype=np.uint8)
        labels[np.repeat(np.arange(len(texts)), [len(findings) for findings in found]), index] = 1
        return labels, classes
    check_filled(manifest, name, cells)
    if not set(texts) <= set(classes) and all(text.isascii() and text.isdigit() and len(text) < 6 for text in texts):
        return indices(np.array([int(text) for text in texts]), classes, what)
    return indices(cells, classes, what)


def _splits(manifest: Path, table: Table) -> NDArray[np.int8] | None:
    if "split" not in table:
        return None
    unknown = sorted(set(table["split"].tolist()) - set(SPLIT_NAMES))
    if unknown:
        raise DataError(f"{manifest.name}: column 'split' holds {unknown[0]!r}. Allowed are train, val and test.")
    return np.array([SPLIT_NAMES[name] for name in table["split"].tolist()], dtype=np.int8)
