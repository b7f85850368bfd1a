"""External validation: a trained run judged on an archive that it has never seen, site by site."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.evaluation import predict
from common.config import RunConfig
from common.data.archive import read_archive
from common.data.base import Dataset
from common.errors import DataError, RunFolderError
from common.metrics.bootstrap import interval, over_seeds
from common.seeds import generator
from common.tasks.build import build_task
from simulations.judging import Verdict, final_arrays, judge_predictions, model_of, resample_seed
from simulations.pipeline import read_settings
from simulations.results import load_results
from simulations.trainer import training_folder

# ITU-R BT.601 luma: how colour becomes grey, as in Pillow's "L".
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class External:
    """What an external validation found; `table` has the columns of the headline table, `notes` what was converted."""

    run: Path
    archive: Path
    method: str
    config_digest: str
    data_digest: str
    table: list[dict[str, Any]]
    notes: list[str]


def evaluate_archive(run: Path, archive: Path, method: str = "federated") -> External:
    """Judge all images of an archive with the final models of a run, one row per site and metric, averaged over seeds.

    Raises:
        RunFolderError: The run is not finished or has no such training.
        DataError: The archive is damaged, or has other classes than the run.
    """
    results = load_results(run)
    experiment = read_settings(run)
    config, record = experiment.config, results.record["data"]
    folders = [training_folder(run, seed, method) for seed in experiment.study.seeds]
    if not all(folder.is_dir() for folder in folders):
        root = run / "trainings" / f"seed-{experiment.study.seeds[0]}"
        known = sorted(str(path.parent.relative_to(root)) for path in root.rglob("checkpoint.safetensors"))
        raise RunFolderError(f"{run} has no training {method!r}. It has: {', '.join(known)}.")
    task = build_task(config.task, tuple(record["classes"]), tuple(record["mask_classes"]))
    data, notes = open_external(archive, config, record)
    data = task.prepare(data)
    models = [
        model_of(final_arrays(folder), config, task, record["channels"], record["image_size"]) for folder in folders
    ]
    table: list[dict[str, Any]] = []
    for number, site in enumerate(data.site_names):
        part = data.subset(data.sites == number)
        if len(part) == 0:
            continue
        seed = resample_seed(config, site)
        verdicts = [
            judge_predictions(predict([model], task, part), task, experiment.study.bootstrap, seed) for model in models
        ]
        table += _rows(method, site, task.metrics, verdicts)
    return External(run, archive, method, results.record["config_digest"], data.digest(), table, notes)


def open_external(archive: Path, config: RunConfig, record: dict[str, Any]) -> tuple[Dataset, list[str]]:
    """Open an archive as the run's images were: same size, channels and class names; say what had to be converted.

    Raises:
        DataError: The archive is missing, damaged, or does not fit the run.
    """
    size = int(record["image_size"])
    data = read_archive(archive, config.data.model_copy(update={"image_size": 0}))
    notes = []
    if data.images.shape[-1] != size:
        notes.append(f"images brought from {data.images.shape[-1]} to {size} pixels a side")
        data = read_archive(archive, config.data.model_copy(update={"image_size": size}))
    if data.channels != record["channels"]:
        notes.append(f"images converted from {data.channels} to {record['channels']} channels")
        data = replace(data, images=_channels(data.images, int(record["channels"])))
    classes = tuple(record["classes"])
    if data.labels is not None and data.classes != classes and all(name.isdigit() for name in data.classes):
        if len(data.classes) > len(classes):
            raise DataError(
                f"{archive.name}: labels reach {len(data.classes) - 1}; the run knows {len(classes)} classes."
            )
        notes.append("the archive names no classes; its labels were read as the run's class indices")
        data = replace(data, classes=classes)
    return data, notes


def _channels(images: NDArray[Any], channels: int) -> NDArray[Any]:
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    grey = np.tensordot(images.astype(np.float32), LUMA, axes=(1, 0))[:, None]
    return grey if images.dtype == np.float32 else np.rint(grey).astype(np.uint8)


def _rows(method: str, site: str, metrics: tuple[str, ...], verdicts: list[Verdict]) -> list[dict[str, Any]]:
    random = generator(0, "seeds", site)
    rows = []
    for number, metric in enumerate(metrics):
        values = np.array([verdict.value[number] for verdict in verdicts])
        low, high = interval(over_seeds(np.stack([verdict.resampled[number] for verdict in verdicts]), random))
        rows.append(
            {
                "method": method,
                "site": site,
                "role": "held-out",
                "metric": metric,
                "value": float(values.mean()),
                "low": low,
                "high": high,
                "n": int(verdicts[0].support[number]),
            }
        )
    return rows
