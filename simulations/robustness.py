"""What would acquisition do to a finished run's model? Every corruption of a modality, prediction and attention."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.evaluation import BATCH, predict
from common.attention.base import AttentionModel
from common.attention.maps import attention_maps
from common.data.base import Dataset
from common.explanations.attention_stability import MEASURES, attention_stability
from common.metrics import METRICS
from common.metrics.base import Classified, Predictions
from common.seeds import derive, generator
from simulations.corruptions import CORRUPTIONS
from simulations.corruptions.corrupt import SEVERITIES, corrupt, of_modality
from simulations.finished import Step
from simulations.judging import Case, Court, open_court
from simulations.results import FEDERATED

Row = dict[str, Any]
FLOOR, FLOOR_SPREAD = "(noise floor)", 0.005
"""Two passes that differ by noise of half a percent of white: so much moves by itself."""
KEYS = ("corruption", "severity")
MOVED = 0.5
"""Attention moved where it shares less than half of its top cells with what it was."""
CHANCE = {"auroc": 0.5, "balanced-accuracy": 0.5, "dice": 0.0}


@dataclass(frozen=True, slots=True)
class Robustness:
    """`rows`: one per corruption and severity, averaged over sites and seeds; `summary`: one per corruption."""

    run: Path
    privacy: str
    metric: str
    modality: str
    seeds: tuple[int, ...]
    clean: float
    rows: list[Row]
    summary: list[Row]


def study_corruptions(run: Path, modality: str, step: Step = lambda text: None) -> Robustness:
    """Judge the federated model of every seed on corrupted test images of every site.

    Raises:
        RunFolderError: The run is not finished, or its data are others now.
        ConfigError: No such modality.
    """
    results, experiment, court = open_court(run)
    names = [name for name in of_modality(modality) if _fits(name, court)]
    seeds = tuple(experiment.study.seeds)
    found: list[list[Row]] = []
    for seed in seeds:
        for site in court.federation.sites:
            step(f"seed {seed}: the federated model at {site.name}")
            found.append(list(_of_site(court, seed, site.name, names)))
    rows = [averaged(list(same)) for same in zip(*found, strict=True)]
    clean = rows[0]["clean"]
    metric = court.task.metrics[0]
    return Robustness(
        run, str(results.record["privacy"]), metric, modality, seeds, clean, rows, _summary(rows, names, metric)
    )


def averaged(same: list[Row]) -> Row:
    """Average one corruption and severity over sites and seeds; `defined` counts those where the metric is.

    A site that lacks a class has no AUROC: it is left out of the metric's columns and stays in the others.
    """
    found: Row = {name: same[0][name] for name in KEYS}
    for key in [key for key in same[0] if key not in KEYS]:
        column = np.array([row[key] for row in same], np.float64)
        known = column[np.isfinite(column)]
        found[key] = float(known.mean()) if len(known) else np.nan
    return {**found, "defined": sum(bool(np.isfinite(row["drop"])) for row in same)}


def _fits(name: str, court: Court) -> bool:
    """Whether images have its channels; masks are not moved along, so no geometry for segmentation."""
    found = CORRUPTIONS.load(name)
    return found.channels in (0, court.federation.channels) and not (court.task.dense and found.family == "geometry")


def _of_site(court: Court, seed: int, site: str, names: list[str]) -> Iterator[Row]:
    (model,) = court.models(Case(seed, (FEDERATED,), site))
    data = court.data(site, "test")
    whole = np.rint(data.images * (1 if data.images.dtype == np.uint8 else 255)).astype(np.uint8)
    data = replace(data, images=whole)
    seen, maps = predict([model], court.task, data), mean_attention(model, data)
    metric = METRICS.load(court.task.metrics[0])()
    clean, sign = float(metric.value(seen)[0]), 1 if metric.higher_is_better else -1
    draw = derive(court.seed, "corruptions", site)
    noise = generator(draw, FLOOR).normal(0, FLOOR_SPREAD, whole.shape)
    changed = [(FLOOR, 0, (whole / 255 + noise).clip(0, 1).astype(np.float32))]
    for name, severity, images in [*changed, *((n, s, None) for n in names for s in SEVERITIES)]:
        worse = replace(data, images=corrupt(whole, name, severity, draw) if images is None else images)
        value, again = predict([model], court.task, worse), mean_attention(model, worse)
        score = float(metric.value(value)[0])
        yield {
            "corruption": name,
            "severity": severity,
            "value": score,
            "clean": clean,
            "drop": sign * (clean - score),
            **_attention(maps, again, _flipped(seen, value)),
        }


def mean_attention(model: AttentionModel, data: Dataset) -> NDArray[np.float64] | None:
    """Give the mean map over attention sites that have a place, [N, H, W]; None where none has."""
    device = next(model.parameters()).device
    found = []
    for start in range(0, len(data), BATCH):
        images = data.batch(np.arange(start, min(start + BATCH, len(data))), device).images
        maps = list(attention_maps(model, images).values())
        if not maps or maps[0].ndim != 3:
            return None
        found.append(np.mean([each.cpu().numpy() for each in maps], axis=0))
    return np.concatenate(found).astype(np.float64)


def _flipped(before: Predictions, after: Predictions) -> NDArray[np.bool_] | None:
    """Tell which images were given another class; None for segmentation and several findings."""
    if not isinstance(before, Classified) or not isinstance(after, Classified) or before.labels.ndim == 2:
        return None
    one = before.probabilities.shape[1] == 1
    left, right = (p > 0.5 if one else p.argmax(1)[:, None] for p in (before.probabilities, after.probabilities))
    return np.asarray((left != right)[:, 0])


def _attention(
    before: NDArray[np.float64] | None, after: NDArray[np.float64] | None, flipped: NDArray[np.bool_] | None
) -> Row:
    """Measure stability, and the two dangerous cells: the one without the other tells that a map explains nothing."""
    nothing = {**dict.fromkeys(MEASURES, np.nan), "flipped": np.nan, "moved_alone": np.nan, "flipped_alone": np.nan}
    if flipped is not None:
        nothing["flipped"] = float(flipped.mean())
    if before is None or after is None:
        return nothing
    each = attention_stability(before, after)
    found = {**nothing, **{name: float(values.mean()) for name, values in each.items()}}
    if flipped is not None:
        moved = each["as_top"] < MOVED
        found |= {"moved_alone": float((moved & ~flipped).mean()), "flipped_alone": float((flipped & ~moved).mean())}
    return found


def _summary(rows: list[Row], names: list[str], metric: str) -> list[Row]:
    """Average over severities; relative robustness is the share of what lies above chance that is kept."""
    found = []
    for name in names:
        own = [row for row in rows if row["corruption"] == name]
        mean = {key: float(np.mean([row[key] for row in own])) for key in own[0] if key not in {*KEYS, "defined"}}
        above = mean["clean"] - CHANCE[metric] if metric in CHANCE else np.nan
        share = 1 - mean["drop"] / above if above > 0 else np.nan
        family = CORRUPTIONS.load(name).family
        found.append({"corruption": name, "family": family, **mean, "relative_robustness": share})
    return sorted(found, key=lambda row: -row["drop"] if np.isfinite(row["drop"]) else np.inf)
