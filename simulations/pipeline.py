"""One run from a checked study to results: train, judge, tabulate, draw, save."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from common.attention.schema import schema_of
from common.metrics import METRICS
from server.checkpoint import load_checkpoint
from server.history import History, RoundRecord
from server.rounds import StopFlag, Stopped
from simulations.gallery import overlays
from simulations.judging import Case, Court
from simulations.overlay import Overlay
from simulations.protocols import Cast, local
from simulations.record import data_record, environment_record, notes
from simulations.results import FEDERATED, Results, make_table, save
from simulations.study import Study
from simulations.tabulate import Tabulator
from simulations.tabulate_training import distance_rows, health_rows, history_rows, told_rows
from simulations.trainer import Watch, train_all, training_folder


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


class Run:
    """A study in its run folder.

    Args:
        study: What to do.
        folder: Claimed already.
        began: When the run began and with which code; a resume keeps it.
        code: The code that runs now (`record.code_record`).
    """

    def __init__(self, study: Study, folder: Path, began: Mapping[str, str], code: dict[str, str]) -> None:
        self.study, self.folder, self.began, self.code = study, folder, began, code
        self.clock = Clock()

    def train(self, stop: StopFlag, watch: Watch) -> None:
        """Train what is not trained yet.

        Raises:
            ConsiliumError: Anything that the user can cause or cure.
            Stopped: `stop` was set; all is checkpointed.
        """
        study = self.study
        train_all(study.jobs(self.folder), study.experiment.study.engine, study.workers, stop, watch)
        self.clock.lap("training")
        if stop.is_set():
            raise Stopped

    def judge(self) -> Results:
        """Judge all that was trained, and save the results.

        Raises:
            RunFolderError: A training is missing, or the disk is full.
        """
        study, chosen = self.study, self.study.experiment.study
        court = Court(self.folder, study.experiment.config, chosen.bootstrap, study.workers)
        cast = Cast(study.sources, study.held_out, self._validator(court))
        court.judge(list(self._cases(cast)))
        tabulator = Tabulator(court, cast, chosen.seeds)
        for comparison in study.comparisons:
            tabulator.add(comparison)
        rows: dict[str, Sequence[dict[str, Any]]] = {
            "headline": list(tabulator.headline()),
            "differences": list(tabulator.differences()),
            "calibration": [row for one in study.comparisons for row in tabulator.calibration(one)],
            "matrix": list(tabulator.matrix(self._references())) if "matrix" in chosen.protocols else [],
            "history": self._history(),
            "health": self._of_federated(health_rows),
            "distances": self._of_federated(told_rows),
        }
        rows |= self._distances()
        pictures = self._overlays(court)
        self.clock.lap("evaluation")
        results = Results(
            record=self._record(rows["headline"]),
            tables={name: make_table(name, table) for name, table in rows.items()},
            overlays=pictures,
            folder=self.folder,
        )
        save(results, self.folder)
        return results

    def _references(self) -> list[str]:
        names = {plan.name for plan in self.study.plans()}
        return [name for name in ("federated", "pooled") if name in names]

    def _validator(self, court: Court) -> Callable[[str], float]:
        """Score a training on the source sites' validation images, by the primary metric, larger is better."""
        study = self.study
        sign = 1.0 if METRICS.load(study.task.metrics[0])().higher_is_better else -1.0

        def validate(plan: str) -> float:
            seeds = study.experiment.study.seeds
            cases = [Case(seed, (plan,), site, "val") for seed in seeds for site in study.sources]
            court.judge(cases)
            values = np.array([court.verdict(case).value[0] for case in cases])
            return sign * float(np.nanmean(values)) if np.isfinite(values).any() else float("-inf")

        return validate

    def _cases(self, cast: Cast) -> Iterator[Case]:
        """Everything the tables need, so that the court can judge it in parallel."""
        study = self.study
        sites = (*study.sources, *study.held_out)
        juries = {(jury, site) for one in study.comparisons for site in sites for jury in one.juries(site, cast)}
        if "matrix" in study.experiment.study.protocols:
            plans = [*(local(site) for site in study.sources), *self._references()]
            juries |= {((plan,), site) for plan in plans for site in sites}
        for seed in study.experiment.study.seeds:
            yield from (Case(seed, jury, site) for jury, site in sorted(juries))

    def _history(self) -> list[dict[str, Any]]:
        jobs = self.study.jobs(self.folder)
        return [row for job in jobs for row in history_rows(job.plan.name, job.seed, History(job.folder).records())]

    def _of_federated(
        self, rows: Callable[[str, int, list[RoundRecord]], Iterator[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Of the federated model alone: a site's own model is watched by nobody."""
        jobs = [job for job in self.study.jobs(self.folder) if job.plan.name == FEDERATED]
        return [row for job in jobs for row in rows(job.plan.name, job.seed, History(job.folder).records())]

    def _distances(self) -> dict[str, list[dict[str, Any]]]:
        """ADD between the sites' attention under the federated model of the first seed.

        Under privacy of the noisy signatures that say more than their noise; there are none where sums alone are seen.
        """
        folder = training_folder(self.folder, self.study.experiment.study.seeds[0], "federated")
        checkpoint, last = load_checkpoint(folder), History(folder).records()[-1:]
        if checkpoint is None:
            return {}
        means = {site: each.mean for site, each in checkpoint.signatures.items()}
        means |= {site: np.array(mean) for record in last for site, mean in record.vectors.items()}
        if len(means) < 2:
            return {}
        sites = [site.name for site in self.study.federation.sites if site.name in means]
        pairs, blocks = distance_rows(schema_of(self.study.model), {site: means[site] for site in sites})
        return {"add": pairs, "add_blocks": blocks}

    def _overlays(self, court: Court) -> list[Overlay]:
        study = self.study
        if "federated" not in study.experiment.study.protocols or not study.model.attention_sites:
            return []
        seed = study.experiment.study.seeds[0]
        sites = (*study.sources, *study.held_out)
        models = {site: court.models(Case(seed, ("federated",), site))[0] for site in sites}
        return list(overlays(models, study.task, study.federation, study.experiment.config.data.seed))

    def _record(self, headline: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        study, experiment = self.study, self.study.experiment
        return {
            "name": experiment.study.name,
            "run": self.folder.resolve().name,
            "created": self.began["created"],
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seeds": list(experiment.study.seeds),
            # Without the folder: a report is passed on, and where the images lie concerns nobody else.
            "config": {**experiment.flat(), "data.path": Path(experiment.config.data.path).name},
            "config_digest": experiment.digest(),
            "code": self.code,
            "data": data_record(study.federation, study.task),
            "environment": environment_record(experiment.config.train.device),
            "privacy": experiment.config.protection,
            "task": experiment.config.task.name,
            "metrics": list(study.task.metrics),
            "methods": {one.method: one.meaning for one in study.comparisons if one.method != "matrix"},
            "seconds": dict(self.clock.seconds),
            "notes": notes(experiment, self.began, self.code, headline),
        }
