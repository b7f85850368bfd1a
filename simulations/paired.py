"""Is one run better than another? Their metrics on the same patients, seed by seed and resample by resample."""

from pathlib import Path
from typing import Any

import numpy as np

from common.errors import ConfigError
from common.metrics.bootstrap import interval
from simulations.answers import Answer
from simulations.experiment import Experiment
from simulations.finished import open_finished
from simulations.judging import Court
from simulations.protocols import PROTOCOLS, Cast
from simulations.results import Results
from simulations.tabulate import Tabulator

Row = dict[str, Any]


def paired_difference(run: Path, baseline: Path, protocol: str = "federated") -> list[Row]:
    """Give run − baseline of every metric at every site and summary, with a 95 % interval over patients and seeds.

    Both runs resample the same patients, so that what an easy or hard patient does to both cancels.

    Raises:
        RunFolderError: A run is not finished.
        ConfigError: They were not judged on the same images by the same seeds, or one has not this protocol.
    """
    both = [open_finished(folder) for folder in (run, baseline)]
    (left, one), (right, two) = both
    for what in ("digest", "split_digest"):
        if left.record["data"][what] != right.record["data"][what]:
            raise ConfigError(
                f"{run} and {baseline} have other images or another division. Give runs of the same data."
            )
    if one.study.seeds != two.study.seeds or one.study.bootstrap != two.study.bootstrap:
        raise ConfigError(f"{run} and {baseline} have other seeds or `bootstrap`. Run both with the same.")
    found, known = (_answers(folder, *each, protocol) for folder, each in zip((run, baseline), both, strict=True))
    metrics = left.record["metrics"]
    return [
        _row(site, metrics[place], answer, known[site], place)
        for site, answer in found.items()
        if site in known
        for place in range(len(metrics))
    ]


def _answers(run: Path, results: Results, experiment: Experiment, protocol: str) -> dict[str, Answer]:
    if protocol not in experiment.study.protocols:
        raise ConfigError(
            f"{run} has not the protocol {protocol!r}. It has {', '.join(experiment.study.protocols)}; ask for one."
        )
    court = Court(run, experiment.config, experiment.study.bootstrap, None)
    cast = Cast(tuple(results.sites("source")), tuple(results.sites("held-out")), lambda plan: float("nan"))
    table = Tabulator(court, cast, tuple(experiment.study.seeds))
    comparison = PROTOCOLS.load(protocol)()
    table.add(comparison)
    return {answer.site: answer for answer in table.answers(comparison.method)}


def _row(site: str, metric: str, found: Answer, known: Answer, place: int) -> Row:
    low, high = interval(found.resampled[place] - known.resampled[place])
    return {
        "site": site,
        "role": found.role,
        "metric": metric,
        "run": float(found.by_seed[place].mean()),
        "baseline": float(known.by_seed[place].mean()),
        "difference": float(np.mean(found.by_seed[place] - known.by_seed[place])),
        "low": low,
        "high": high,
        "n": int(found.support[place]),
        "seeds": len(found.by_seed[place]),
    }
