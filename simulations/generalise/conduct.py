"""A benchmark from its file to its tables: train what is not trained, judge, tabulate; stopped, it goes on later."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.arrays import write_atomic
from common.data.federation import Federation, open_federation
from common.models.build import build_model
from common.tasks.build import build_task
from server.rounds import StopFlag, Stopped
from simulations.experiment import Experiment
from simulations.finished import Step
from simulations.generalise import FOLDS
from simulations.generalise.bench import Bench
from simulations.generalise.benchmark import Benchmark
from simulations.generalise.calibrated import calibration, validation_juries
from simulations.generalise.folder import joined
from simulations.generalise.folds import Fold
from simulations.generalise.rows import Row, Tabulator
from simulations.generalise.scores import Scores
from simulations.generalise.trainings import Trainings
from simulations.record import code_record, data_record, environment_record
from simulations.run_folder import claimed
from simulations.trainer import Watch, train_all

RECORD = "benchmark.json"
RULE = "candidates by the mean primary metric on the source sites' validation images; the last round's arrays"


@dataclass(frozen=True, slots=True)
class Generalised:
    """What a benchmark found: tables by name, and what they rest on."""

    folder: Path
    record: dict[str, Any]
    tables: dict[str, list[Row]]


class Contest:
    """A benchmark whose data are open and whose parts are found good.

    Raises:
        ConfigError, DataError: Settings, data, task and models that do not go together; one site only.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        study = benchmark.base.study
        self.workers = None if study.workers < 0 else study.workers
        self.federation: Federation = open_federation(benchmark.base.config.data)
        self.task = build_task(benchmark.base.config.task, self.federation.classes, self.federation.mask_classes)
        self.folds: tuple[Fold, ...] = tuple(
            FOLDS.load(benchmark.protocol)(self._sites("source"), self._sites("held-out"))
        )
        for site in self.federation.sites:
            self.task.prepare(site.train)
        for experiment in (benchmark.base, *(one for method in benchmark.methods for one in method.candidates)):
            self._check(experiment)

    def _sites(self, role: str) -> tuple[str, ...]:
        return tuple(site.name for site in self.federation.sites if site.role == role)

    def _check(self, experiment: Experiment) -> None:
        data = self.federation
        build_model(
            experiment.config.model, data.channels, self.task.outputs, data.image_size, 0, dense=self.task.dense
        )

    def run(self, folder: Path, stop: StopFlag, watch: Callable[[Trainings], Watch], step: Step) -> Generalised:
        """Do all that is not done in `folder`, and give the tables of all that it holds.

        Raises:
            ConsiliumError: Anything that the user can cause or cure.
            Stopped: `stop` was set; all is checkpointed.
        """
        code = code_record()
        now = {"data": self.federation.data_digest, "code": code["digest"]}
        with claimed(folder, self.benchmark.base, now, resume=True) as began:
            whole = joined(self.benchmark, folder)
            trainings = Trainings(whole, self.folds, folder)
            jobs = trainings.jobs()
            train_all(jobs, whole.base.study.engine, self.workers, stop, watch(trainings))
            if stop.is_set():
                raise Stopped
            bench = Bench(folder, whole.base.config, jobs, self.workers)
            scores = Scores(trainings, bench, whole.base.study.bootstrap, self.workers)
            tables = _tables(scores, step)
            record = self._record(whole, began, code)
            write_atomic(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False).encode())
        return Generalised(folder, record, tables)

    def _record(self, whole: Benchmark, began: dict[str, str], code: dict[str, str]) -> dict[str, Any]:
        base = whole.base
        return {
            "name": base.study.name,
            "title": base.study.title,
            "protocol": whole.protocol,
            "reference": whole.reference,
            "seeds": list(base.study.seeds),
            "selection": RULE,
            "config": {**base.flat(), "data.path": Path(base.config.data.path).name},
            "config_digest": base.digest(),
            "created": began["created"],
            "code": code,
            "data": data_record(self.federation, self.task),
            "environment": environment_record(base.config.train.device),
            "privacy": base.config.protection,
            "metrics": list(self.task.metrics),
        }


def _tables(scores: Scores, step: Step) -> dict[str, list[Row]]:
    step("judging on the source sites' validation images")
    scores.judge(list(scores.validation_cases()))
    step("judging on the sites' images")
    scores.judge(list(scores.all_cases()))
    if not scores.bench.task.dense:
        scores.judge(list(validation_juries(scores)))
    step("comparing")
    rows = Tabulator(scores)
    return {
        "sites": list(rows.sites()),
        "summary": list(rows.summary()),
        "differences": list(rows.differences()),
        "gain": list(rows.gain()),
        "calibration": list(calibration(scores)),
        "selection": list(rows.selection()),
    }
