"""One experiment from settings to results: train, judge, tabulate, draw, save."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from common.arrays import write_atomic
from common.attention.schema import schema_of
from common.data.federation import Federation, open_federation
from common.errors import ConfigError, RunFolderError
from common.metrics import METRICS
from common.models.build import build_model
from common.tasks.base import Task
from common.tasks.build import build_task
from server.checkpoint import load_checkpoint
from server.history import History
from server.rounds import StopFlag
from server.strategies import STRATEGIES
from simulations.engine import Training
from simulations.experiment import Experiment, build
from simulations.gallery import overlays
from simulations.judging import Case, Court
from simulations.overlay import Overlay
from simulations.protocols import PROTOCOLS, Cast, Comparison, Plan, local
from simulations.record import code_record, data_record, environment_record
from simulations.results import Results, make_table, save
from simulations.tabulate import Tabulator
from simulations.tabulate_training import distance_rows, history_rows
from simulations.trainer import Job, Watch, train_all, training_folder

SETTINGS = "experiment.json"
NO_PRIVACY = "Privacy mechanism: none. Updates and signatures were released in the clear."


@dataclass(slots=True)
class Clock:
    """Wall seconds of the stages of a run."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def lap(self, stage: str) -> None:
        """Book the time since the last lap."""
        now = time.monotonic()
        self.seconds[stage] = round(now - self._since, 2)
        self._since = now


class Study:
    """An experiment in its run folder."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.experiment, self.folder = experiment, folder
        self.created = datetime.now(UTC)
        self.clock = Clock()
        self.workers = None if experiment.study.workers < 0 else experiment.study.workers
        self.comparisons: list[Comparison] = [PROTOCOLS.load(name)() for name in experiment.study.protocols]
        self.federation: Federation = open_federation(experiment.config.data)
        self.task: Task = build_task(experiment.config.task, self.federation.classes, self.federation.mask_classes)
        self.sources = tuple(site.name for site in self.federation.sites if site.role == "source")
        self.held_out = tuple(site.name for site in self.federation.sites if site.role == "held-out")
        self._check()

    def jobs(self) -> list[Job]:
        """Give every training that the protocols need, each once per seed."""
        plans = {plan.name: plan for comparison in self.comparisons for plan in comparison.plans(self.sources)}
        return [self._job(seed, plan) for seed in self.experiment.study.seeds for plan in plans.values()]

    def run(self, stop: StopFlag, watch: Watch) -> Results:
        """Train what is not trained yet, judge, and save the results.

        Raises:
            ConsiliumError: Anything that the user can cause or cure.
            Stopped: `stop` was set; all is checkpointed.
        """
        self.clock.lap("data")
        train_all(self.jobs(), self.experiment.study.engine, self.workers, stop, watch)
        self.clock.lap("training")
        results = self._results()
        save(results, self.folder)
        return results

    def _check(self) -> None:
        """Refuse before any work what would fail after it: task, model, strategy, mechanism."""
        config = self.experiment.config
        STRATEGIES.load(config.strategy.name)
        if config.privacy.mechanism != "none":
            raise ConfigError(
                f"setting 'privacy.mechanism' is {config.privacy.mechanism!r}. This version knows only 'none', which "
                f"protects nothing and says so in every output."
            )
        for site in self.federation.sites:
            for data in (site.train, site.val, site.test):
                self.task.prepare(data)
        federation = self.federation
        self.model = build_model(
            config.model, federation.channels, self.task.outputs, federation.image_size, 0, dense=self.task.dense
        )

    def _job(self, seed: int, plan: Plan) -> Job:
        folder = training_folder(self.folder, seed, plan.name)
        # Held-out sites watch a federated training: they are judged each round and never train.
        watchers = tuple((name,) for name in self.held_out) if len(plan.groups) > 1 else ()
        config = self.experiment.seeded(seed)
        quorum = min(config.cohort.quorum, len(plan.groups))
        config = config.replace({"out": str(folder), "cohort.quorum": quorum})
        return Job(seed, plan, Training(plan.name, config, (*plan.groups, *watchers)))

    def _results(self) -> Results:
        study = self.experiment.study
        court = Court(self.folder, self.experiment.config, study.bootstrap, self.workers)
        cast = Cast(self.sources, self.held_out, self._validator(court))
        court.judge(list(self._cases(cast)))
        tabulator = Tabulator(court, cast, study.seeds)
        for comparison in self.comparisons:
            tabulator.add(comparison)
        rows: dict[str, Sequence[dict[str, Any]]] = {
            "headline": list(tabulator.headline()),
            "differences": list(tabulator.differences()),
            "calibration": [row for one in self.comparisons for row in tabulator.calibration(one)],
            "matrix": list(tabulator.matrix(self._references())) if "matrix" in study.protocols else [],
            "history": self._history(),
        }
        rows |= self._distances()
        self.clock.lap("evaluation")
        return Results(
            record=self._record(),
            tables={name: make_table(name, table) for name, table in rows.items()},
            overlays=self._overlays(court),
            folder=self.folder,
        )

    def _references(self) -> list[str]:
        names = {plan.name for comparison in self.comparisons for plan in comparison.plans(self.sources)}
        return [name for name in ("federated", "pooled") if name in names]

    def _validator(self, court: Court) -> Callable[[str], float]:
        """Score a training on the source sites' validation images, by the primary metric, larger is better."""
        sign = 1.0 if METRICS.load(self.task.metrics[0])().higher_is_better else -1.0

        def validate(plan: str) -> float:
            cases = [Case(seed, (plan,), site, "val") for seed in self.experiment.study.seeds for site in self.sources]
            court.judge(cases)
            values = np.array([court.verdict(case).value[0] for case in cases])
            return sign * float(np.nanmean(values)) if np.isfinite(values).any() else float("-inf")

        return validate

    def _cases(self, cast: Cast) -> Iterator[Case]:
        """Everything the tables need, so that the court can judge it in parallel."""
        sites = (*self.sources, *self.held_out)
        juries = {(jury, site) for one in self.comparisons for site in sites for jury in one.juries(site, cast)}
        if "matrix" in self.experiment.study.protocols:
            plans = [*(local(site) for site in self.sources), *self._references()]
            juries |= {((plan,), site) for plan in plans for site in sites}
        for seed in self.experiment.study.seeds:
            yield from (Case(seed, jury, site) for jury, site in sorted(juries))

    def _history(self) -> list[dict[str, Any]]:
        return [
            row for job in self.jobs() for row in history_rows(job.plan.name, job.seed, History(job.folder).records())
        ]

    def _distances(self) -> dict[str, list[dict[str, Any]]]:
        """ADD between the sites' attention under the federated model of the first seed."""
        folder = training_folder(self.folder, self.experiment.study.seeds[0], "federated")
        checkpoint = load_checkpoint(folder)
        if checkpoint is None or len(checkpoint.signatures) < 2:
            return {}
        sites = [site.name for site in self.federation.sites if site.name in checkpoint.signatures]
        signatures = {site: checkpoint.signatures[site] for site in sites}
        pairs, blocks = distance_rows(schema_of(self.model), signatures)
        return {"add": pairs, "add_blocks": blocks}

    def _overlays(self, court: Court) -> list[Overlay]:
        if "federated" not in self.experiment.study.protocols or not self.model.attention_sites:
            return []
        seed = self.experiment.study.seeds[0]
        models = {site: court.models(Case(seed, ("federated",), site))[0] for site in (*self.sources, *self.held_out)}
        return list(overlays(models, self.task, self.federation, self.experiment.config.data.seed))

    def _record(self) -> dict[str, Any]:
        experiment = self.experiment
        shown = [one for one in self.comparisons if one.method != "matrix"]
        return {
            "name": experiment.study.name,
            "run": self.folder.name,
            "created": self.created.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seeds": list(experiment.study.seeds),
            "config": experiment.flat(),
            "config_digest": experiment.digest(),
            "code": code_record(),
            "data": data_record(self.federation, self.task),
            "environment": environment_record(),
            "privacy": experiment.config.privacy.mechanism,
            "task": experiment.config.task.name,
            "metrics": list(self.task.metrics),
            "methods": {one.method: one.meaning for one in shown},
            "seconds": dict(self.clock.seconds),
            "notes": [NO_PRIVACY, *([experiment.study.title] if experiment.study.title else [])],
        }


def begin(experiment: Experiment, folder: Path, resume: bool) -> None:
    """Claim the run folder, or check that it holds this very experiment.

    Raises:
        RunFolderError: The folder exists and `resume` is off, or it holds another experiment, or it cannot be written.
    """
    path = folder / SETTINGS
    if folder.exists() and any(folder.iterdir()):
        if not resume:
            raise RunFolderError(
                f"the run folder {folder} exists already. Give another `--out`, or go on with it: --resume."
            )
        if read_settings(folder).digest() != experiment.digest():
            raise RunFolderError(
                f"{folder} holds a run with other settings. Resume it with its own (`consilium resume {folder}`), or "
                f"give another `--out`."
            )
    write_atomic(path, json.dumps(experiment.flat(), indent=2).encode())


def read_settings(folder: Path) -> Experiment:
    """Read the experiment of a run folder.

    Raises:
        RunFolderError: The folder is no run folder, or its settings are damaged.
    """
    path = folder / SETTINGS
    try:
        return build(json.loads(path.read_text(encoding="utf-8")), folder)
    except FileNotFoundError:
        raise RunFolderError(f"{folder} is no run folder: {SETTINGS} is missing. Give the folder of a run.") from None
    except ValueError:
        raise RunFolderError(f"{path} is damaged. Start the run anew in another folder.") from None
