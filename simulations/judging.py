"""Judging: each jury predicts a site's test images once; metrics and their patient resamples follow from that.

The resamples of a site are the same for every jury and seed, so any two methods can be compared pair by pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from client.evaluation import predict
from client.own import own_arrays
from client.site import folder_name
from client.store import Store
from common.arrays import Arrays, load_arrays
from common.attention.base import AttentionModel
from common.config import RunConfig
from common.data.base import Dataset
from common.data.federation import Federation, open_federation
from common.device import choose_device
from common.errors import RunFolderError
from common.metrics import METRICS
from common.metrics.base import Predictions
from common.metrics.bootstrap import resample_weights
from common.metrics.calibration import reliability
from common.models.build import build_model
from common.seeds import derive
from common.tasks.base import Task
from common.tasks.build import build_task
from server.checkpoint import load_checkpoint
from simulations.engine import choose_workers
from simulations.experiment import Experiment
from simulations.finished import open_finished
from simulations.protocols import Jury
from simulations.results import Results
from simulations.trainer import FOREVER, training_folder
from simulations.workers import Emit, Workers


@dataclass(frozen=True, slots=True)
class Case:
    """A jury before one site's images of one split, under one training seed."""

    seed: int
    jury: Jury
    site: str
    split: str = "test"


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Metrics of one case.

    Shapes: value float64 [M] and support int64 [M] in the order of the task's metrics; resampled float64 [M, B];
    reliability float64 [bins, 3] (confidence, observed, count).
    """

    value: NDArray[np.float64]
    resampled: NDArray[np.float64]
    support: NDArray[np.int64]
    reliability: NDArray[np.float64]


class Court:
    """Judges cases of one run folder, in worker processes, and remembers what it has judged."""

    def __init__(self, run: Path, config: RunConfig, resamples: int, workers: int | None) -> None:
        self._run, self._config, self._resamples = run, config, resamples
        self._wish = workers
        self.federation: Federation = open_federation(config.data)
        self.task: Task = build_task(config.task, self.federation.classes, self.federation.mask_classes)
        self._verdicts: dict[Case, Verdict] = {}

    @property
    def seed(self) -> int:
        """Seed of the data: of every draw that should be the same for all trainings."""
        return self._config.data.seed

    def judge(self, cases: Sequence[Case]) -> None:
        """Judge what is new among `cases`."""
        todo = [case for case in dict.fromkeys(cases) if case not in self._verdicts]
        if not todo:
            return

        def answer(request: bytes, emit: Emit) -> bytes:
            return encode(self._judge(todo[int(request)]))

        with Workers(choose_workers(self._config, self._wish, len(todo)), answer) as pool:
            for case, verdict in zip(todo, pool.run([str(i).encode() for i in range(len(todo))], FOREVER), strict=True):
                if not isinstance(verdict, bytes):
                    raise verdict or TimeoutError
                self._verdicts[case] = decode(verdict)

    def verdict(self, case: Case) -> Verdict:
        """Give the metrics of a case, judged now if it was not before."""
        self.judge([case])
        return self._verdicts[case]

    def models(self, case: Case) -> list[AttentionModel]:
        """Load the models of a case; with what the site keeps for itself where it has some."""
        return [self._model(case.seed, plan, case.site) for plan in case.jury]

    def data(self, site: str, split: str) -> Dataset:
        """Give a site's images, prepared for the task."""
        return self.task.prepare(getattr(self.federation.site(site), split))

    def _model(self, seed: int, plan: str, site: str) -> AttentionModel:
        folder = training_folder(self._run, seed, plan)
        return trained_model(folder, self._config, self.task, self.federation, site)

    def _judge(self, case: Case) -> Verdict:
        data = self.data(case.site, case.split)
        predictions = predict(self.models(case), self.task, data)
        # Validation scores choose among models and need no interval.
        resamples = self._resamples if case.split == "test" else 0
        return judge_predictions(predictions, self.task, resamples, resample_seed(self._config, case.site))


def open_court(run: Path) -> tuple[Results, Experiment, Court]:
    """Open a finished run and the data that it was trained on.

    Raises:
        RunFolderError: The run is not finished, is a mixture of two, or its data are others now.
    """
    results, experiment = open_finished(run)
    court = Court(run, experiment.config, 0, 0)
    if court.federation.data_digest != results.record["data"]["digest"]:
        raise RunFolderError(
            f"the data of {run} are not those that it was trained on. Put the same data back where the settings say."
        )
    return results, experiment, court


def final_arrays(folder: Path) -> Arrays:
    """Read the arrays that a training ended with.

    Raises:
        RunFolderError: There is no checkpoint.
    """
    checkpoint = load_checkpoint(folder)
    if checkpoint is None:
        raise RunFolderError(f"{folder} holds no trained model. Finish the run with `consilium resume`.")
    return checkpoint.arrays


def trained_model(folder: Path, config: RunConfig, task: Task, federation: Federation, site: str) -> AttentionModel:
    """Load the model that a training ended with, as `site` has it: with its personal parts where it has some."""
    kept = Store(folder / "sites" / folder_name(site)).load(config.rounds)
    arrays = own_arrays(final_arrays(folder), kept)
    return model_of(arrays, config, task, federation.channels, federation.image_size)


def model_of(arrays: Arrays, config: RunConfig, task: Task, channels: int, image_size: int) -> AttentionModel:
    """Build the run's model with these arrays, on the device of the settings, for judging."""
    model = build_model(config.model, channels, task.outputs, image_size, seed=0, dense=task.dense)
    load_arrays(model, arrays)
    return model.to(choose_device(config.train.device)).eval()


def resample_seed(config: RunConfig, site: str) -> int:
    """Give the seed of a site's resamples: the same for every method and training seed."""
    return derive(config.data.seed, "bootstrap", site)


def judge_predictions(predictions: Predictions, task: Task, resamples: int, seed: int) -> Verdict:
    """Compute all metrics of the task, and again on `resamples` draws of patients (none with 0)."""
    metrics = [METRICS.load(name)() for name in task.metrics]
    weights = resample_weights(predictions.patients, resamples, seed) if resamples else None
    curve = reliability(predictions)
    return Verdict(
        value=np.array([float(metric.value(predictions)[0]) for metric in metrics]),
        resampled=np.stack([metric.value(predictions, weights)[:resamples] for metric in metrics]),
        support=np.array([metric.support(predictions) for metric in metrics], dtype=np.int64),
        reliability=np.stack([curve.confidence, curve.frequency, curve.count.astype(np.float64)], axis=1),
    )


def encode(verdict: Verdict) -> bytes:
    """Put a verdict on the pipe of a worker process."""
    return bytes(save({field.name: np.ascontiguousarray(getattr(verdict, field.name)) for field in fields(verdict)}))


def decode(content: bytes) -> Verdict:
    """Take it off again."""
    return Verdict(**load(content))
