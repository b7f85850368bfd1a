"""From predictions to answers: who judges for a row of the table, which candidate was chosen, and what it scores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from common.metrics import METRICS
from common.metrics.base import Predictions
from common.metrics.bootstrap import over_seeds
from common.seeds import generator
from simulations.answers import Answer
from simulations.engine import choose_workers
from simulations.generalise.bench import Bench, Sitting
from simulations.generalise.benchmark import BASELINES, Method
from simulations.generalise.folds import Fold, Split
from simulations.generalise.trainings import Trainings, plan_name, pooled
from simulations.judging import Verdict, decode, encode, judge_predictions, resample_seed
from simulations.protocols import Jury, local
from simulations.trainer import FOREVER
from simulations.workers import Emit, Workers


@dataclass(frozen=True, slots=True)
class Case:
    """A jury before one site's images under one seed; what is averaged are its members' probabilities."""

    seed: int
    jury: Jury
    site: str
    split: Split


@dataclass
class Scores:
    """Answers of methods and baselines. `resamples` of the patients stand behind every interval."""

    trainings: Trainings
    bench: Bench
    resamples: int
    workers: int | None
    _verdicts: dict[Case, Verdict] = field(default_factory=dict)

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, the primary one first."""
        return self.bench.task.metrics

    @cached_property
    def signs(self) -> NDArray[np.float64]:
        """One for a metric of which more is better, minus one for the others, [M]."""
        return np.array([1.0 if METRICS.load(name)().higher_is_better else -1.0 for name in self.metrics])

    @property
    def rows(self) -> list[str]:
        """The rows of the table: methods in their order, then the baselines."""
        asked = [method.name for method in self.trainings.benchmark.methods]
        return [*asked, *(name for name in BASELINES if name != "own")]

    def juries(self, row: str, fold: Fold, site: str) -> list[Jury]:
        """Give the juries of a row at a site of a fold; of several, metrics are averaged."""
        sources = fold.sources
        baselines: dict[str, Callable[[], list[Jury]]] = {
            "pooled": lambda: [(pooled(fold),)],
            "local": lambda: [(local(site),)] if site in sources else [(local(name),) for name in sources],
            "own": lambda: [(local(site),)],
            "ensemble": lambda: [tuple(local(name) for name in sources)],
            "best-single-site": lambda: [(local(self.best_single(fold)),)],
        }
        if row in baselines:
            return baselines[row]()
        method = self._method(row)
        parts = [self._method(name) for name in method.members] or [method]
        return [tuple(plan_name(part, self.chosen(part, fold), fold) for part in parts)]

    def best_single(self, fold: Fold) -> str:
        """Give the source site whose own model has the best mean validation score over the fold's sources."""
        return max(fold.sources, key=lambda name: self.validation(local(name), fold))

    def chosen(self, method: Method, fold: Fold) -> int:
        """Give the candidate with the best mean validation score over the fold's sources, seeds together."""
        scores = [self.validation(plan_name(method, n, fold), fold) for n in range(len(method.candidates))]
        return int(np.argmax(scores)) if len(scores) > 1 else 0

    def validation(self, plan: str, fold: Fold) -> float:
        """Score a training on the source sites' validation images by the primary metric, larger is better."""
        cases = [Case(seed, (plan,), site, "val") for seed in self.trainings.seeds for site in fold.sources]
        self.judge(cases)
        values = np.array([self._verdicts[case].value[0] for case in cases])
        return float(self.signs[0] * np.nanmean(values)) if np.isfinite(values).any() else float("-inf")

    def answer(self, row: str, fold: Fold, site: str, split: Split) -> Answer:
        """Give a row's metrics at a site, averaged over juries and seeds, with resamples of patients and seeds."""
        juries, seeds = self.juries(row, fold, site), self.trainings.seeds
        verdicts = [[self.verdict(Case(seed, jury, site, split)) for jury in juries] for seed in seeds]
        resampled = np.stack([np.mean([one.resampled for one in per], axis=0) for per in verdicts])
        random = generator(0, "seeds")  # the same seeds in resample b for every row, site and metric
        role = "in" if site in fold.sources else "held-out"
        return Answer(
            site=site,
            role=role,
            members=((site, role),),
            by_seed=np.stack([np.mean([one.value for one in per], axis=0) for per in verdicts], axis=1),
            resampled=np.stack([over_seeds(resampled[:, number], random) for number in range(resampled.shape[1])]),
            support=np.min([one.support for per in verdicts for one in per], axis=0),
        )

    def predictions(self, case: Case) -> Predictions:
        """Give what a jury said."""
        return self.bench.predictions(Sitting(case.seed, case.jury, case.site, case.split))

    def verdict(self, case: Case) -> Verdict:
        """Give the metrics of a case, judged now if it was not before."""
        self.judge([case])
        return self._verdicts[case]

    def judge(self, cases: Sequence[Case]) -> None:
        """Judge what is new among `cases`, in worker processes."""
        todo = [case for case in dict.fromkeys(cases) if case not in self._verdicts]
        if not todo:
            return
        self.bench.sit([Sitting(case.seed, case.jury, case.site, case.split) for case in todo])
        config = self.trainings.benchmark.base.config

        def answer(request: bytes, emit: Emit) -> bytes:
            case = todo[int(request)]
            # Validation scores choose among models and need no interval.
            resamples = 0 if case.split == "val" else self.resamples
            seed = resample_seed(config, case.site)
            return encode(judge_predictions(self.predictions(case), self.bench.task, resamples, seed))

        with Workers(choose_workers(config, self.workers, len(todo)), answer) as pool:
            asked = [str(number).encode() for number in range(len(todo))]
            for case, verdict in zip(todo, pool.run(asked, FOREVER), strict=True):
                if not isinstance(verdict, bytes):
                    raise verdict or TimeoutError
                self._verdicts[case] = decode(verdict)

    def all_cases(self) -> Iterator[Case]:
        """Everything that the tables will ask for, so that it is judged in parallel."""
        for seed in self.trainings.seeds:
            for fold in self.trainings.folds:
                for row in self.rows:
                    for site, split in fold.judged:
                        yield from (Case(seed, jury, site, split) for jury in self.juries(row, fold, site))
                        if self.at_home(fold, site):
                            yield from (Case(seed, jury, site, "test") for jury in self.juries(row, fold, site))

    def validation_cases(self) -> Iterator[Case]:
        """The source sites' validation images before every training of their fold."""
        for seed in self.trainings.seeds:
            for fold in self.trainings.folds:
                plans = [local(site) for site in fold.sources] + [pooled(fold)]
                for method in self.trainings.benchmark.methods:
                    plans += [plan_name(method, number, fold) for number in range(len(method.candidates))]
                yield from (Case(seed, (plan,), site, "val") for plan in plans for site in fold.sources)

    def at_home(self, fold: Fold, site: str) -> bool:
        """Say whether a site that the fold left out has a model of its own, from other folds, to be held against."""
        return site not in fold.sources and any(site in other.sources for other in self.trainings.folds)

    def _method(self, name: str) -> Method:
        return next(method for method in self.trainings.benchmark.methods if method.name == name)
