"""The official MedMNIST files: six arrays in one `.npz`, official splits kept, every image its own patient."""

from pathlib import Path

import numpy as np

from common.config import DataSection
from common.data.archive import checked
from common.data.archive_columns import images_of, labels_of, masks_of
from common.data.base import Dataset
from common.data.choose import patients_of
from common.data.download import download
from common.data.medmnist_table import RECORD, published
from common.data.npz import read_npz
from common.data.resize import fit
from common.data.sidecar import Sidecar
from common.data.splits import SPLITS
from common.errors import ConfigError, DataError, nearest


def medmnist(settings: DataSection) -> Dataset:
    """Open the file that `data.path` names, for example `data/pneumoniamnist.npz` or `data/chestmnist_64`.

    The files hold no patient names, so every image counts as a patient of its own: intervals are then narrower than
    they would be by patient. A file of another name opens too; its classes are named by their index.

    Raises:
        ConfigError: No path.
        DataError: The file is absent and may not be fetched, or is not in the official format.
    """
    if not settings.path:
        raise ConfigError("data.path is empty. The medmnist data set needs a path such as `data/pneumoniamnist.npz`.")
    path = _file(Path(settings.path).expanduser())
    if not path.is_file():
        _fetch(path, settings)
    arrays = read_npz(path)
    missing = [name for split in SPLITS for name in (f"{split}_images", f"{split}_labels") if name not in arrays]
    if missing:
        raise DataError(
            f"{path.name}: there is no {' and no '.join(missing)}. Allowed is the official MedMNIST format with train, "
            f"val and test; other files open as data set `archive`."
        )
    for split in SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.ndim < 3 or labels.ndim < 1 or len(images) != len(labels):
            raise DataError(
                f"{path.name}: {split} has images of shape {images.shape} and labels of shape {labels.shape}. Every "
                f"image needs one row of labels; copy the file anew."
            )
    return _dataset(path, arrays, settings)


def _dataset(path: Path, arrays: dict[str, np.ndarray], settings: DataSection) -> Dataset:
    known = published().get(path.stem)
    sidecar = Sidecar(path.name, {"classes": list(known[0].classes)} if known else {})
    images = images_of(path.name, _joined(path, arrays, "images"))
    columns = {"labels": _joined(path, arrays, "labels")}
    labels, classes = labels_of(columns, sidecar, settings.label)
    masks, mask_classes = masks_of(columns, sidecar, settings.mask)
    counts = [len(arrays[f"{split}_images"]) for split in SPLITS]
    dataset = Dataset(
        name=path.stem,
        images=images,
        labels=labels,
        masks=masks,
        patients=patients_of({}, len(images), settings.patient, settings.patient_pattern),
        sites=np.zeros(len(images), dtype=np.int64),
        site_names=(path.stem,),
        splits=np.repeat(np.arange(3, dtype=np.int8), counts),
        classes=classes,
        mask_classes=mask_classes,
        licence=known[0].licence if known else "",
    )
    return fit(checked(dataset, settings.classes), settings.image_size)


def _joined(path: Path, arrays: dict[str, np.ndarray], kind: str) -> np.ndarray:
    parts = [arrays[f"{split}_{kind}"] for split in SPLITS]
    if len({part.shape[1:] for part in parts}) > 1 or len({part.dtype for part in parts}) > 1:
        raise DataError(f"{path.name}: the {kind} of train, val and test differ in shape or dtype. Copy the file anew.")
    return np.concatenate(parts)


def _file(path: Path) -> Path:
    """Give the file: the path itself, or with `.npz` added where that is left out."""
    return path if path.suffix == ".npz" or path.is_file() else path.with_name(f"{path.name}.npz")


def _fetch(path: Path, settings: DataSection) -> None:
    known = published()
    if path.stem not in known:
        raise DataError(
            f"data.path: there is no file {path}, and no MedMNIST file has that name.{nearest(path.stem, list(known))} "
            f"Give the path of an existing file, or one whose name is published, such as pneumoniamnist.npz."
        )
    url = f"{RECORD}/{path.name}?download=1"
    if not settings.download:
        raise DataError(
            f"data.path: there is no file {path}. Put the file from {url} there, or set data.download=true to let "
            f"Consilium fetch it once."
        )
    download(url, path, known[path.stem][1])
