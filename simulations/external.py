"""External validation: a trained run judged on an archive that it has never seen, site by site."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.evaluation import predict
from common.attention.base import AttentionModel
from common.data.base import Dataset
from common.errors import UnknownNameError
from common.metrics.bootstrap import interval, over_seeds
from common.seeds import generator
from common.tasks.base import Task
from common.tasks.build import build_task
from simulations.experiment import Experiment
from simulations.external_data import open_external, reading
from simulations.finished import open_finished
from simulations.judging import Verdict, final_arrays, judge_predictions, model_of, resample_seed
from simulations.protocols import PROTOCOLS
from simulations.trainer import training_folder

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class External:
    """What an external validation found; `table` has the columns of the headline table, `notes` what was converted."""

    run: Path
    archive: Path
    method: str
    privacy: str
    config_digest: str
    data_digest: str
    table: list[dict[str, Any]]
    notes: list[str]


def evaluate_archive(run: Path, archive: Path, method: str = "federated", changes: Sequence[str] = ()) -> External:
    """Judge all images of an archive with the final models of a run, one row per site and metric, averaged over seeds.

    Args:
        run: Folder of a finished run.
        archive: An `.npz`, perhaps with its `.json` beside it.
        method: Name of the training whose models judge.
        changes: `data.KEY=VALUE` each, where the archive is to be read otherwise than the run's data were.

    Raises:
        RunFolderError: The run is not finished.
        UnknownNameError: The run has no such training.
        ConfigError: A change is no setting that says how an archive is read.
        DataError: The archive is damaged, or has other classes than the run.
    """
    results, experiment = open_finished(run)
    record = results.record["data"]
    known = _trainings(experiment, record)
    if method not in known:
        raise UnknownNameError("training of this run", method, known)
    config = experiment.config
    task = build_task(config.task, tuple(record["classes"]), tuple(record["mask_classes"]))
    data, notes = open_external(archive, reading(config, changes), record)
    digest = data.digest()
    if digest == record["digest"]:
        notes.append("these are the images that the run was trained and judged on: this is no external validation")
    folders = [training_folder(run, seed, method) for seed in experiment.study.seeds]
    size, channels = int(record["image_size"]), int(record["channels"])
    models = [model_of(final_arrays(folder), config, task, channels, size) for folder in folders]
    table = list(_table(method, task, task.prepare(data), models, experiment))
    privacy = str(results.record["privacy"])
    return External(run, archive, method, privacy, experiment.digest(), digest, table, notes)


def _trainings(experiment: Experiment, record: Mapping[str, Any]) -> list[str]:
    sources = tuple(str(site["name"]) for site in record["sites"] if site["role"] == "source")
    plans = [PROTOCOLS.load(name)().plans(sources) for name in experiment.study.protocols]
    return list(dict.fromkeys(plan.name for some in plans for plan in some))


def _table(
    method: str, task: Task, data: Dataset, models: Sequence[AttentionModel], experiment: Experiment
) -> Iterator[Row]:
    for number, site in enumerate(data.site_names):
        part = data.subset(data.sites == number)
        if len(part):
            drawn = resample_seed(experiment.config, site)
            verdicts = [
                judge_predictions(predict([model], task, part), task, experiment.study.bootstrap, drawn)
                for model in models
            ]
            yield from _rows(method, site, task.metrics, verdicts)


def _rows(method: str, site: str, metrics: tuple[str, ...], verdicts: list[Verdict]) -> Iterator[Row]:
    random = generator(0, "seeds")
    for number, metric in enumerate(metrics):
        values = np.array([verdict.value[number] for verdict in verdicts])
        low, high = interval(over_seeds(np.stack([verdict.resampled[number] for verdict in verdicts]), random))
        yield {
            "method": method,
            "site": site,
            "role": "held-out",
            "metric": metric,
            "value": float(values.mean()),
            "low": low,
            "high": high,
            "n": min(int(verdict.support[number]) for verdict in verdicts),
        }
