"""From verdicts to tables: headline with summaries, paired differences, site × site matrix, calibration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.metrics import METRICS
from common.metrics.bootstrap import interval, over_seeds
from common.seeds import generator
from simulations.judging import Case, Court
from simulations.protocols import Cast, Comparison, Jury, local
from simulations.results import ALL_SOURCES, FEDERATED, HELD_OUT_MEAN, WORST_SOURCE

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A method's answer at one site, or over `members` (site, role): metrics averaged over juries and seeds.

    Shapes: by_seed [M, S]; resampled [M, B]; support [M].
    """

    site: str
    role: str
    members: tuple[tuple[str, str], ...]
    by_seed: NDArray[np.float64]
    resampled: NDArray[np.float64]
    support: NDArray[np.int64]


class Tabulator:
    """Makes rows out of what a court has judged."""

    def __init__(self, court: Court, cast: Cast, seeds: tuple[int, ...]) -> None:
        self._court, self._cast, self._seeds = court, cast, seeds
        self._metrics = court.task.metrics
        self._signs = [1.0 if METRICS.load(name)().higher_is_better else -1.0 for name in self._metrics]
        self._answers: dict[str, list[Answer]] = {}

    def add(self, comparison: Comparison) -> None:
        """Judge a method everywhere it has an answer, and its summaries."""
        found = []
        for site in (*self._cast.sources, *self._cast.held_out):
            if juries := comparison.juries(site, self._cast):
                role = "in" if site in self._cast.sources and not _never_saw(juries, site) else "held-out"
                found.append(self._answer(site, role, juries))
        if found:
            self._answers[comparison.method] = [*found, *self._summaries(found)]

    def answers(self, method: str) -> list[Answer]:
        """Give a method's answers: its sites, then its summaries."""
        return list(self._answers.get(method, []))

    def headline(self) -> Iterator[Row]:
        """One row per method, site or summary, and metric."""
        for method, answers in self._answers.items():
            for answer in answers:
                for number, metric in enumerate(self._metrics):
                    low, high = interval(answer.resampled[number])
                    values = answer.by_seed[number]
                    yield {
                        "method": method,
                        "site": answer.site,
                        "role": answer.role,
                        "metric": metric,
                        "value": float(values.mean()),
                        "low": low,
                        "high": high,
                        "n": int(answer.support[number]),
                        "seeds": len(values),
                        "seed_sd": float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
                    }

    def differences(self) -> Iterator[Row]:
        """Federated minus every other method, site by site, on the same resamples of the same patients."""
        federated = {answer.site: answer for answer in self._answers.get(FEDERATED, [])}
        for method, answers in self._answers.items():
            for answer in answers:
                if method == FEDERATED or answer.site not in federated:
                    continue
                ours = federated[answer.site]
                if ours.members != answer.members:  # a mean over other sites, or a site that one of them trained on
                    continue
                for number, metric in enumerate(self._metrics):
                    low, high = interval(ours.resampled[number] - answer.resampled[number])
                    yield {
                        "method": FEDERATED,
                        "baseline": method,
                        "site": answer.site,
                        "metric": metric,
                        "difference": float((ours.by_seed - answer.by_seed)[number].mean()),
                        "low": low,
                        "high": high,
                        "n": int(answer.support[number]),
                    }

    def matrix(self, references: list[str]) -> Iterator[Row]:
        """Every local model, and the reference models, at every site; the primary metric and all others."""
        rows = [*((site, local(site)) for site in self._cast.sources), *((name, name) for name in references)]
        for trained_on, plan in rows:
            for site in (*self._cast.sources, *self._cast.held_out):
                answer = self._answer(site, "", [(plan,)])
                for number, metric in enumerate(self._metrics):
                    low, high = interval(answer.resampled[number])
                    yield {
                        "trained_on": trained_on,
                        "judged_on": site,
                        "metric": metric,
                        "value": float(answer.by_seed[number].mean()),
                        "low": low,
                        "high": high,
                        "n": int(answer.support[number]),
                    }

    def calibration(self, comparison: Comparison) -> Iterator[Row]:
        """Reliability bins of the first seed, per site."""
        for site in (*self._cast.sources, *self._cast.held_out):
            for jury in comparison.juries(site, self._cast)[:1]:
                curve = self._court.verdict(Case(self._seeds[0], jury, site)).reliability
                for number, (confidence, observed, count) in enumerate(curve):
                    if count > 0:
                        yield {
                            "method": comparison.method,
                            "site": site,
                            "bin": number,
                            "confidence": float(confidence),
                            "observed": float(observed),
                            "count": int(count),
                        }

    def _answer(self, site: str, role: str, juries: list[Jury]) -> Answer:
        verdicts = [[self._court.verdict(Case(seed, jury, site)) for jury in juries] for seed in self._seeds]
        resampled = np.stack([np.mean([one.resampled for one in row], axis=0) for row in verdicts])
        # The same seeds in resample b at every site: one model is judged at all of them.
        random = generator(0, "seeds")
        return Answer(
            site=site,
            role=role,
            members=((site, role),),
            by_seed=np.stack([np.mean([one.value for one in row], axis=0) for row in verdicts], axis=1),
            resampled=np.stack([over_seeds(resampled[:, number], random) for number in range(resampled.shape[1])]),
            # HD95 has a distance only where a model found something: the fewest images that any value rests on.
            support=np.min([one.support for row in verdicts for one in row], axis=0),
        )

    def _summaries(self, answers: list[Answer]) -> Iterator[Answer]:
        inside = [answer for answer in answers if answer.role == "in"]
        outside = [answer for answer in answers if answer.role == "held-out"]
        if outside:
            yield _mean(HELD_OUT_MEAN, outside)
        if len(inside) > 1:
            yield _mean(ALL_SOURCES, inside)
            yield _worst(inside, np.array(self._signs))


def _mean(name: str, answers: list[Answer]) -> Answer:
    """Average over sites; one where a metric is undefined (one class only) does not count for that metric."""
    by_seed, defined, support, resampled = _stacked(answers)
    return Answer(
        site=name,
        role=answers[0].role,
        members=tuple(member for answer in answers for member in answer.members),
        by_seed=_mean_defined(by_seed, defined),
        # Sites are independent of each other, so resample b of one goes with resample b of the next.
        resampled=_mean_defined(resampled, defined),
        support=np.where(defined, support, 0).sum(axis=0),
    )


def _worst(answers: list[Answer], signs: NDArray[np.float64]) -> Answer:
    """Take, per metric, the site that is worst on average over the seeds, with its own seeds and images.

    The interval is that of the minimum: in each resample the site that is worst there counts, whichever it is.
    """
    by_seed, defined, support, resampled = _stacked(answers)
    mean = np.where(defined, by_seed.mean(axis=2) * signs, np.inf)
    worst, metric = mean.argmin(axis=0), np.arange(len(signs))
    lowest = np.where(defined[..., None], resampled * signs[:, None], np.inf).min(axis=0) * signs[:, None]
    return Answer(
        site=WORST_SOURCE,
        role=answers[0].role,
        members=tuple(member for answer in answers for member in answer.members),
        by_seed=by_seed[worst, metric],
        resampled=np.where(np.isinf(lowest), np.nan, lowest),
        support=np.where(defined.any(axis=0), support[worst, metric], 0),
    )


def _stacked(
    answers: list[Answer],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
    """Give by_seed [sites, M, S], whether each metric is defined at each site [sites, M], support and resamples."""
    by_seed = np.stack([answer.by_seed for answer in answers])
    return (
        by_seed,
        np.asarray(np.isfinite(by_seed).all(axis=2)),
        np.stack([answer.support for answer in answers]),
        np.stack([answer.resampled for answer in answers]),
    )


def _mean_defined(values: NDArray[np.float64], defined: NDArray[np.bool_]) -> NDArray[np.float64]:
    count = defined.sum(axis=0)[:, None].astype(np.float64)
    total = np.where(defined[..., None], values, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))


def _never_saw(juries: list[Jury], site: str) -> bool:
    return all(plan == f"without/{site}" for jury in juries for plan in jury)
