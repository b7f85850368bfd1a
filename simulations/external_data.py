"""An archive that a run has not seen, brought to the form of the run's own images; what was converted is said."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.config import DataSection, RunConfig
from common.data.archive import read_archive
from common.data.base import Dataset
from common.data.choose import keep_classes
from common.data.colour import to_channels
from common.data.resize import fit
from common.data.sidecar import read_sidecar
from common.errors import ConfigError, DataError, nearest
from common.items import need_images
from simulations.experiment import parse_change

READING = ("data.classes", "data.label", "data.mask", "data.orientation", "data.patient", "data.patient-pattern")
"""Settings that say how an archive is read; all others are the run's."""


def reading(config: RunConfig, changes: Sequence[str]) -> DataSection:
    """Give the run's own way of reading images, with some `data.` settings changed.

    Raises:
        ConfigError: A change is not of the form key=value, or no setting of reading.
    """
    changed = dict(map(parse_change, changes))
    for key in changed:
        if key not in READING:
            raise ConfigError(
                f"setting {key!r} says nothing about how an archive is read.{nearest(key, list(READING))} Allowed are "
                f"{', '.join(READING)}; everything else is the run's."
            )
    return config.replace(changed).data


def open_external(archive: Path, settings: DataSection, record: Mapping[str, Any]) -> tuple[Dataset, list[str]]:
    """Open an archive as the run's images were: same size, channels and class names; say what had to be converted.

    Args:
        archive: An `.npz`, perhaps with its `.json` beside it.
        settings: How to read it; its image size does not count.
        record: `data` of the run's record.

    Raises:
        DataError: The archive is missing, damaged, or does not fit the run.
        ConfigError: The run is of bags.
    """
    size, channels = int(record["image_size"]), int(record["channels"])
    need_images("an archive", size)
    data, notes = _named(archive, settings, tuple(record["classes"]))
    data, said = _masks_in_order(data, tuple(record["mask_classes"]))
    notes += said
    if data.images.shape[-1] != size:
        notes.append(f"images brought from {data.images.shape[-1]} to {size} pixels a side")
        data = fit(data, size)
    if data.channels != channels:
        notes.append(f"images converted from {data.channels} to {channels} channels")
        data = replace(data, images=to_channels(data.images, channels))
    return data.check(), notes


def _named(archive: Path, settings: DataSection, classes: tuple[str, ...]) -> tuple[Dataset, list[str]]:
    """Read the archive; where neither sidecar nor labels name classes, its numbers are the run's class indices."""
    key = "classes" if settings.label in ("auto", "labels") else settings.label
    if read_sidecar(archive.with_suffix(".json")).names(key):
        return read_archive(archive, settings.model_copy(update={"image_size": 0})), []
    data = read_archive(archive, settings.model_copy(update={"image_size": 0, "classes": ""}))
    if data.labels is None or data.classes == classes:
        return data, []
    if not all(name.isdigit() for name in data.classes):  # the labels are names themselves
        return keep_classes(data, settings.classes), []
    many, few = len(data.classes), len(classes)
    if many > few or (data.labels.ndim == 2 and many != few):
        raise DataError(
            f"{archive.name} names no classes and has {many}; the run knows {few} ({', '.join(classes)}). Name them "
            f"in a .json beside the archive."
        )
    return replace(data, classes=classes), [
        f"the archive names no classes; its labels were read as the run's: "
        f"{', '.join(f'{index} {name}' for index, name in enumerate(classes))}"
    ]


def _masks_in_order(data: Dataset, classes: tuple[str, ...]) -> tuple[Dataset, list[str]]:
    """Number the mask classes as the run does, by name; with one foreground class, names do not matter."""
    found = data.mask_classes
    if data.masks is None or found == classes or not classes:
        return data, []
    if len(found) <= 2 and len(classes) <= 2:
        return replace(data, mask_classes=classes), [f"mask {found[-1]!r} was read as {classes[-1]!r}"]
    if strange := [name for name in found if name not in classes]:
        raise DataError(
            f"{data.name}: mask classes are {', '.join(found)}; the run knows {', '.join(classes)}. Rename or merge "
            f"{', '.join(strange)}; 'mask_classes' in the .json beside the archive names them."
        )
    order = np.array([classes.index(name) for name in found], dtype=np.uint8)
    return replace(data, masks=order[data.masks], mask_classes=classes), []
