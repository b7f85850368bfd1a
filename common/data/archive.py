"""One data set in one `.npz`, its names in a `.json` beside it: docs/reference/archive.md tells the format."""

import json
from pathlib import Path

import numpy as np

from common.config import DataSection
from common.data.archive_columns import images_of, labels_of, masks_of, sites_of, splits_of
from common.data.base import Dataset
from common.data.choose import keep_classes, patients_of
from common.data.npz import array_names, read_npz, write_npz, write_whole
from common.data.resize import fit
from common.data.sidecar import read_sidecar
from common.data.volumes import sliced
from common.errors import ConfigError, DataError
from common.items import need_images

ALWAYS = {"images", "centre", "split", "patient", "lesion", "video", "labels"}


def archive(settings: DataSection) -> Dataset:
    """Open the archive that `data.path` names.

    Raises:
        ConfigError: No path.
        DataError: As `read_archive`.
    """
    if not settings.path:
        raise ConfigError("data.path is empty. The archive data set needs the path of an `.npz` file.")
    return read_archive(Path(settings.path).expanduser(), settings)


def read_archive(path: Path, settings: DataSection) -> Dataset:
    """Open any archive with the choices of `settings`: label, mask, patient, classes, image size.

    A missing sidecar is no error: classes are then named by their index and sites `centre-0`, `centre-1`, …

    Raises:
        DataError: Missing or damaged file, or content that the format does not allow.
        ConfigError: A setting names a class or pattern that cannot be.
    """
    names = array_names(path)
    sidecar = read_sidecar(path.with_suffix(".json"))
    arrays = sliced(read_npz(path, ALWAYS | {settings.label, settings.mask, settings.patient} - {"auto"}))
    if "images" not in arrays:
        raise DataError(f"{path.name}: there is no array 'images'. Tables are not supported. It holds: {_list(names)}.")
    images = images_of(path.name, arrays.pop("images"))
    listed = dict.fromkeys(names, np.empty(0)) | arrays  # unread arrays by name only, for the list in an error
    labels, classes = labels_of(listed, sidecar, settings.label)
    masks, mask_classes = masks_of(listed, sidecar, settings.mask)
    sites, site_names = sites_of(path, arrays, sidecar, len(images))
    dataset = Dataset(
        name=sidecar.text("name") or path.stem,
        images=images,
        labels=labels,
        masks=masks,
        patients=patients_of(listed, len(images), settings.patient, settings.patient_pattern),
        sites=sites,
        site_names=site_names,
        splits=splits_of(path.name, arrays.get("split")),
        classes=classes,
        mask_classes=mask_classes,
        licence=sidecar.text("licence"),
    )
    return fit(checked(dataset, settings.classes), settings.image_size)


def write_archive(path: Path, dataset: Dataset) -> None:
    """Write a data set in the archive format: `path` and a `.json` of the same name; the old ones stay until the end.

    Raises:
        DataError: The name does not end in `.npz`, or the folder cannot be written.
        ConfigError: The data are bags.
    """
    need_images("an archive", dataset.side)
    if path.suffix != ".npz":
        raise DataError(f"{path.name}: an archive's name ends in `.npz`. Give such a name.")
    images = dataset.images[:, 0] if dataset.channels == 1 else np.moveaxis(dataset.images, 1, -1)
    columns = {
        "images": images,
        "labels": dataset.labels,
        "masks": dataset.masks,
        "centre": dataset.sites.astype(np.int32),
        "patient": dataset.patients.astype("U"),
        "split": dataset.splits,
    }
    table = {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "mask_classes": list(dataset.mask_classes),
        "centres": list(dataset.site_names),
        "licence": dataset.licence,
    }
    text = json.dumps({key: value for key, value in table.items() if value}, indent=1, ensure_ascii=False)
    write_whole(path.with_suffix(".json"), lambda file: file.write(text.encode()))
    write_npz(path, {name: array for name, array in columns.items() if array is not None})


def checked(dataset: Dataset, wanted: str) -> Dataset:
    """Check columns first, so that choosing classes meets none that is too short; labels may still be negative."""
    for name in ("labels", "masks", "patients", "sites", "splits"):
        values = getattr(dataset, name)
        if values is not None and len(values) != len(dataset):
            raise DataError(
                f"{dataset.name}: {name} has {len(values)} rows and images has {len(dataset)}. Every image needs "
                f"exactly one; write the archive anew."
            )
    labels = dataset.labels
    if labels is not None and labels.ndim == 1 and not wanted.strip() and labels.min(initial=0) < 0:
        raise DataError(
            f"{dataset.name}: {int((labels < 0).sum())} images have a negative label (unknown). Name the classes to "
            f"keep in data.classes: {', '.join(dataset.classes)}."
        )
    return keep_classes(dataset, wanted).check()


def _list(names: list[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
