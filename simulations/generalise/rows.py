"""The tables of a benchmark. Every comparison is of the same images, patients resampled together, seed by seed.

NaN says undefined, as where a site has one class only: never zero, and never counted in a mean.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from common.metrics.base import classified, targets
from common.metrics.bootstrap import interval
from common.metrics.clustered_auroc import compare_auroc
from common.metrics.holm import bootstrap_p, holm
from simulations.answers import Answer, mean_over_sites, worst_site
from simulations.generalise.folds import Fold, Split
from simulations.generalise.scores import Case, Scores

Row = dict[str, Any]
MEAN, WORST = "mean", "worst"


class Tabulator:
    """Makes rows out of scores. A site is judged in one fold, or in several (site-by-site): then rows name the fold."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.folds = scores.trainings.folds
        self.reference = scores.trainings.benchmark.reference
        self._answers: dict[str, list[tuple[str, Answer]]] = {}

    def answers(self, row: str) -> list[tuple[str, Answer]]:
        """Give (fold, answer) of a row at every judged site."""
        if row not in self._answers:
            self._answers[row] = [
                (fold.name, self.scores.answer(row, fold, site, split))
                for fold in self.folds
                for site, split in fold.judged
            ]
        return self._answers[row]

    def sites(self) -> Iterator[Row]:
        """One row per method, judged site and metric."""
        for row in self.scores.rows:
            for fold, answer in self.answers(row):
                for place, metric in enumerate(self.scores.metrics):
                    head = {"method": row, "fold": fold, "site": answer.site, "role": answer.role, "metric": metric}
                    yield head | _value(answer, place)

    def summary(self) -> Iterator[Row]:
        """One row per method and metric: over the judged sites, and against the reference.

        `regret` is how far the method is from the best method of each site, on average over the sites; baselines that
        no federation could have (pooled) do not count as methods there.
        """
        summaries = {row: self._summaries(row) for row in self.scores.rows}
        methods = [method.name for method in self.scores.trainings.benchmark.methods]
        best = np.fmax.reduce(self._stacked(methods), axis=0)
        for place, metric in enumerate(self.scores.metrics):
            found = []
            for row, (mean, worst) in summaries.items():
                sites = self._stacked([row])[0][:, place]
                compared = [
                    _difference(own, of, place)
                    for own, of in zip((mean, worst), summaries[self.reference], strict=True)
                ]
                found.append(
                    {
                        "method": row,
                        "metric": metric,
                        "kind": "method" if row in methods else "baseline",
                        **{MEAN + end: value for end, value in _ends(mean, place).items()},
                        **{WORST + end: value for end, value in _ends(worst, place).items()},
                        "worst_site": self._worst_name(row, place),
                        "sd_sites": float(np.nanstd(sites, ddof=1)) if np.isfinite(sites).sum() > 1 else np.nan,
                        "regret": _mean(best[:, place] - sites),
                        **_minus(MEAN, compared[0]),
                        **_minus(WORST, compared[1]),
                    }
                )
            yield from _adjusted(found, self.reference, (f"d_{MEAN}_p", f"d_{WORST}_p"))

    def differences(self) -> Iterator[Row]:
        """Every method and baseline minus the reference, site by site, with the p of the clustered DeLong test."""
        for number, (fold, of) in enumerate(self.answers(self.reference)):
            for place, metric in enumerate(self.scores.metrics):
                found = []
                for row in self.scores.rows:
                    if row == self.reference:
                        continue
                    answer = self.answers(row)[number][1]
                    head = {"method": row, "reference": self.reference, "fold": fold, "site": answer.site}
                    compared = _difference(answer, of, place)
                    delong = self._delong(row, number) if metric == "auroc" else np.nan
                    found.append(
                        {**head, "metric": metric, **compared, "p_delong": delong, "n": int(answer.support[place])}
                    )
                yield from _adjusted(found, self.reference, ("p",))

    def gain(self) -> Iterator[Row]:
        """What a site gains by a model that it had no part in over its own model, on its own test images."""
        test: Split = "test"
        places = [(fold, site) for fold in self.folds for site, _ in fold.judged]
        for fold, site in places:
            if not (self.scores.at_home(fold, site) or site in fold.sources):
                continue
            own = self.scores.answer("own", fold, site, test)
            for row in self.scores.rows:
                answer = self.scores.answer(row, fold, site, test)
                for place, metric in enumerate(self.scores.metrics):
                    compared = _difference(answer, own, place)
                    head = {"method": row, "fold": fold.name, "site": site, "role": answer.role, "metric": metric}
                    value, alone = float(answer.by_seed[place].mean()), float(own.by_seed[place].mean())
                    yield {**head, "value": value, "own": alone, **compared, "n": int(answer.support[place])}

    def selection(self) -> Iterator[Row]:
        """Where there was a choice: what source validation chose, and apart what the judged sites would have chosen."""
        for method in self.scores.trainings.benchmark.methods:
            for fold in self.folds if len(method.candidates) > 1 else ():
                chosen = self.scores.chosen(method, fold)
                judged = [self._candidate(method.name, number, fold) for number in range(len(method.candidates))]
                oracle = int(np.nanargmax(judged)) if np.isfinite(judged).any() else chosen
                for number, said in enumerate(method.chosen_from):
                    plan = f"{method.name}.{number + 1}/{fold.name}"
                    yield {
                        "method": method.name,
                        "fold": fold.name,
                        "candidate": said,
                        "metric": self.scores.metrics[0],
                        "source_validation": self.scores.validation(plan, fold) * self.scores.signs[0],
                        "chosen": int(number == chosen),
                        "judged": judged[number] * self.scores.signs[0],
                        "oracle": int(number == oracle),
                    }

    def _candidate(self, method: str, number: int, fold: Fold) -> float:
        plan = f"{method}.{number + 1}/{fold.name}"
        cases = [Case(seed, (plan,), *place) for seed in self.scores.trainings.seeds for place in fold.judged]
        self.scores.judge(cases)
        return _mean(np.array([self.scores.verdict(case).value[0] for case in cases])) * float(self.scores.signs[0])

    def _summaries(self, row: str) -> tuple[Answer, Answer]:
        answers = [answer for _, answer in self.answers(row)]
        return mean_over_sites(MEAN, answers), worst_site(WORST, answers, self.scores.signs)

    def _stacked(self, rows: list[str]) -> np.ndarray:
        """Means over seeds, larger is better, [rows, sites, M]."""
        found = [[answer.by_seed.mean(axis=1) for _, answer in self.answers(row)] for row in rows]
        return np.asarray(np.array(found) * self.scores.signs)

    def _worst_name(self, row: str, place: int) -> str:
        sites = self._stacked([row])[0][:, place]
        named = [f"{answer.site}" for _, answer in self.answers(row)]
        return named[int(np.nanargmin(sites))] if np.isfinite(sites).any() else ""

    def _delong(self, row: str, number: int) -> float:
        """Compare the areas of two classes; where juries are several a row has no one score for an image: NaN."""
        places = [(fold, site, split) for fold in self.folds for site, split in fold.judged]
        fold, site, split = places[number]
        pairs = [self.scores.juries(name, fold, site) for name in (row, self.reference)]
        if (
            self.scores.bench.task.dense
            or self.scores.bench.task.outputs != 1
            or any(len(juries) > 1 for juries in pairs)
        ):
            return np.nan
        first, second = (
            [
                classified(self.scores.predictions(Case(seed, juries[0], site, split)))
                for seed in self.scores.trainings.seeds
            ]
            for juries in pairs
        )
        ours, theirs = ([one.probabilities[:, 0] for one in some] for some in (first, second))
        return compare_auroc(ours, theirs, targets(first[0])[:, 0], first[0].patients).p


def _value(answer: Answer, place: int) -> Row:
    low, high = interval(answer.resampled[place])
    values = answer.by_seed[place]
    return {
        "value": float(values.mean()),
        "low": low,
        "high": high,
        "n": int(answer.support[place]),
        "seeds": len(values),
        "seed_sd": float(values.std(ddof=1)) if len(values) > 1 else np.nan,
    }


def _ends(answer: Answer, place: int) -> Row:
    low, high = interval(answer.resampled[place])
    return {"": float(answer.by_seed[place].mean()), "_low": low, "_high": high}


def _difference(answer: Answer, reference: Answer, place: int) -> Row:
    drawn = answer.resampled[place] - reference.resampled[place]
    low, high = interval(drawn)
    value = float(answer.by_seed[place].mean() - reference.by_seed[place].mean())
    return {"difference": value, "low": low, "high": high, "p": bootstrap_p(drawn) if np.isfinite(low) else np.nan}


def _minus(summary: str, compared: Row) -> Row:
    """Name the columns of a difference from the reference: d_mean, d_mean_low, d_mean_high, d_mean_p."""
    return {f"d_{summary}" + ("" if key == "difference" else f"_{key}"): value for key, value in compared.items()}


def _adjusted(rows: list[Row], reference: str, columns: tuple[str, ...]) -> Iterator[Row]:
    """Add Holm's p to the rows of methods: baselines are there to be seen, and the reference is itself."""
    for column in columns:
        tested = np.array([np.nan if row["method"] == reference else row[column] for row in rows])
        for row, p in zip(rows, holm(tested), strict=True):
            row[f"{column}_holm"] = float(p)
    yield from rows


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
