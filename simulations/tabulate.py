"""From verdicts to tables: headline with summaries, paired differences, site × site matrix, calibration."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from common.metrics import METRICS
from common.metrics.bootstrap import interval, over_seeds
from common.seeds import generator
from simulations.answers import Answer, mean_over_sites, worst_site
from simulations.judging import Case, Court
from simulations.protocols import Cast, Comparison, Jury, local
from simulations.results import ALL_SOURCES, FEDERATED, HELD_OUT_MEAN, WORST_SOURCE

Row = dict[str, Any]


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
            yield mean_over_sites(HELD_OUT_MEAN, outside)
        if len(inside) > 1:
            yield mean_over_sites(ALL_SOURCES, inside)
            yield worst_site(WORST_SOURCE, inside, np.array(self._signs))


def _never_saw(juries: list[Jury], site: str) -> bool:
    return all(plan == f"without/{site}" for jury in juries for plan in jury)
