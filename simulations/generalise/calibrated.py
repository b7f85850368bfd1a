"""Calibration before and after federated temperature scaling: T from the source sites' validation images alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from common.metrics.base import classified
from common.metrics.bootstrap import interval, resample_weights
from common.metrics.calibration import ExpectedCalibrationError
from common.metrics.temperature import scaled, temperature
from simulations.generalise.folds import Fold
from simulations.generalise.scores import Case, Scores
from simulations.judging import resample_seed
from simulations.protocols import Jury

Row = dict[str, Any]


def calibration(scores: Scores) -> Iterator[Row]:
    """One row per method and judged site, averaged over seeds; none for segmentation, whose maps are not kept."""
    if scores.bench.task.dense:
        return
    for row in scores.rows:
        for fold in scores.trainings.folds:
            for site, split in fold.judged:
                juries = scores.juries(row, fold, site)
                if len(juries) == 1:
                    found = [_of(scores, fold, Case(seed, juries[0], site, split)) for seed in scores.trainings.seeds]
                    yield {"method": row, "fold": fold.name, "site": site, **_averaged(found)}


def _of(scores: Scores, fold: Fold, case: Case) -> tuple[float, np.ndarray, np.ndarray]:
    validation = [classified(scores.predictions(Case(case.seed, case.jury, source, "val"))) for source in fold.sources]
    heat, raw = temperature(validation), classified(scores.predictions(case))
    seed = resample_seed(scores.trainings.benchmark.base.config, case.site)
    weights = resample_weights(raw.patients, scores.resamples, seed)
    ece = ExpectedCalibrationError()
    pair = [np.append(ece.value(one), ece.value(one, weights)) for one in (raw, scaled(raw, heat))]
    return heat, pair[0], pair[1]


def _averaged(found: list[tuple[float, np.ndarray, np.ndarray]]) -> Row:
    before, after = np.mean([one[1] for one in found], axis=0), np.mean([one[2] for one in found], axis=0)
    low, high = interval(after[1:] - before[1:])
    return {
        "temperature": float(np.mean([one[0] for one in found])),
        "ece": float(before[0]),
        "ece_scaled": float(after[0]),
        "difference": float(after[0] - before[0]),
        "low": low,
        "high": high,
    }


def validation_juries(scores: Scores) -> Iterator[Case]:
    """The source sites' validation images before every jury of one row, for T."""
    for seed in scores.trainings.seeds:
        for fold in scores.trainings.folds:
            for row in scores.rows:
                juries: list[Jury] = [jury for site, _ in fold.judged for jury in scores.juries(row, fold, site)]
                yield from (Case(seed, jury, source, "val") for jury in juries[:1] for source in fold.sources)
