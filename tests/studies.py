"""Studies small enough for a test: archives of three hospitals, and ways to run them with and without a report."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.data.archive import write_archive
from common.data.base import Dataset
from common.seeds import generator
from simulations.experiment import Experiment, load_experiment
from simulations.pipeline import Run
from simulations.record import code_record
from simulations.results import Results
from simulations.run_folder import claimed
from simulations.study import Study

HOSPITALS = ("Alpha", "Beta", "Gamma")
PATIENTS, SIDE = 8, 32
TINY = {
    "rounds": 1,
    "workers": 0,
    "bootstrap": 100,
    "seeds": "[1]",
    "model.width": 4,
    "train.batch-size": 16,
    "train.device": "cpu",
    "data.image-size": SIDE,
    "attention.patients": 2,
}


def made_dataset(classes: Sequence[str] = ("benign", "malign"), channels: int = 1, **changes: Any) -> Dataset:
    """Draw two images of each patient: noise, and a bright square whose place tells the class; `seed` draws others.

    Keywords: seed, side, sites (names), kind (labels: index, findings), one_class (a site whose labels are all 0).
    """
    sites = tuple(changes.get("sites", HOSPITALS))
    side, count = changes.get("side", SIDE), 2 * PATIENTS * len(sites)
    random = generator(changes.get("seed", 0), "made-dataset")
    images = random.integers(0, 90, (count, channels, side, side), dtype=np.uint8)
    masks = np.zeros((count, side, side), np.uint8)
    at = np.repeat(np.arange(len(sites)), 2 * PATIENTS)
    patient = np.arange(count) // 2 % PATIENTS
    labels = patient % len(classes)
    if "one_class" in changes:
        labels[at == sites.index(changes["one_class"])] = 0
    for row, label in enumerate(labels.tolist()):
        start = label * side // len(classes)
        part = (row, slice(start, start + side // 4), slice(start, start + side // 4))
        masks[part] = 1
        images[row][:, part[1], part[2]] = 220
    columns = np.eye(len(classes), dtype=np.uint8)[labels]
    columns[::3, 0] = 1
    return Dataset(
        name="made",
        images=images,
        labels=columns if changes.get("kind") == "findings" else labels.astype(np.int64),
        masks=masks,
        patients=np.array([f"p{number}" for number in patient]),
        sites=at.astype(np.int64),
        site_names=sites,
        classes=tuple(classes),
        mask_classes=("background", "square"),
        licence="CC0-1.0",
    )


def written(path: Path, dataset: Dataset | None = None) -> Path:
    """Write an archive and give its path."""
    write_archive(path, dataset or made_dataset())
    return path


def settings(archive: Path | None = None, **changes: Any) -> list[str]:
    """Give `key=value` of a tiny study: `settings(path, task__name="segmentation")`."""
    values = {**TINY, **{key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}}
    if archive is not None:
        values |= {"data.name": "archive", "data.path": str(archive), "data.held-out": values.get("data.held-out", "")}
    else:
        values |= {"data.patients-per-site": 6}
    return [f"{key}={value}" for key, value in values.items()]


def arguments(archive: Path | None = None, **changes: Any) -> list[str]:
    """Give the same as arguments of `consilium run`."""
    return [word for each in settings(archive, **changes) for word in ("--set", each)]


def experiment(archive: Path | None = None, **changes: Any) -> Experiment:
    """Make a tiny study."""
    return load_experiment("phantom", settings(archive, **changes))


def judged(made: Experiment, folder: Path, resume: bool = False) -> Results:
    """Train and judge without the report, which takes longer than both."""
    study, code = Study(made), code_record()
    now = {"data": study.federation.data_digest, "code": code["digest"]}
    with claimed(folder, made, now, resume) as began:
        run = Run(study, folder, began, code)
        run.train(threading.Event(), lambda progress: None)
        return run.judge()
