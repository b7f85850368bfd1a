"""What a benchmark trains: every method in every fold, and the baselines, once per seed, each in its own folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simulations.engine import Training
from simulations.experiment import Experiment
from simulations.generalise.benchmark import Benchmark, Method
from simulations.generalise.folds import Fold
from simulations.protocols import Plan, local
from simulations.trainer import Job, training_folder

POOLED = "pooled"


@dataclass(frozen=True, slots=True)
class Trainings:
    """The trainings of a benchmark in its folder."""

    benchmark: Benchmark
    folds: tuple[Fold, ...]
    folder: Path

    def jobs(self) -> list[Job]:
        """Give every training once per seed: baselines first, then the methods in their order."""
        plans = list(self._plans())
        return [self._job(seed, plan, experiment) for seed in self.seeds for plan, experiment in plans]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds."""
        return self.benchmark.base.study.seeds

    def _plans(self) -> Iterator[tuple[Plan, Experiment]]:
        base = self.benchmark.base
        for site in sorted({site for fold in self.folds for site in fold.sources}):
            yield Plan(local(site), ((site,),)), base
        for fold in self.folds:
            if len(fold.sources) > 1:
                yield Plan(pooled(fold), (fold.sources,)), base
        for method in self.benchmark.methods:
            for fold in self.folds:
                for number, experiment in enumerate(method.candidates):
                    yield Plan(plan_name(method, number, fold), tuple((site,) for site in fold.sources)), experiment

    def _job(self, seed: int, plan: Plan, experiment: Experiment) -> Job:
        config = experiment.seeded(seed)
        out = training_folder(self.folder, seed, plan.name)
        quorum = min(config.cohort.quorum, len(plan.groups))
        config = config.replace({"out": str(out), "cohort.quorum": quorum, "data.held-out": ""})
        return Job(seed, plan, Training(plan.name, config, plan.groups))


def pooled(fold: Fold) -> str:
    """Name the training on all images of a fold's sources in one place; of one source it is that site's own."""
    return f"{POOLED}/{fold.name}" if len(fold.sources) > 1 else local(fold.sources[0])


def plan_name(method: Method, candidate: int, fold: Fold) -> str:
    """Name the training of one candidate in one fold."""
    number = f".{candidate + 1}" if len(method.candidates) > 1 else ""
    return f"{method.name}{number}/{fold.name}"
