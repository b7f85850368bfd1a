"""From what was judged at single sites to rows with intervals: per corruption and severity, per corruption, and in all.

Source sites and held-out sites are told apart: a model may keep what it learnt at home and lose it elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.metrics import METRICS
from common.metrics.bootstrap import interval
from common.seeds import generator
from simulations.corrupted_site import CLEAN, MEANS, Judged, conditions
from simulations.corruption_error import CorruptionErrors, corruption_errors
from simulations.corruptions import CORRUPTIONS
from simulations.corruptions.corrupt import SEVERITIES

Doubles = NDArray[np.float64]
Row = dict[str, Any]
CHANCE = {"auroc": 0.5, "balanced-accuracy": 0.5, "dice": 0.0}
FLOOR_ROWS = 2
"""Clean and noise floor stand before the corruptions."""


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """All sites of one role, mean over sites and seeds. Shapes as in `Judged`, `defined` [C] counts sites × seeds."""

    role: str
    sites: int
    images: int
    value: Doubles
    stable: Doubles
    reference: Doubles | None
    means: dict[str, Doubles]
    defined: NDArray[np.int64]


def pool(role: str, by_seed: Sequence[Sequence[Judged]]) -> Pooled:
    """Average over sites, then over seeds, which are drawn anew in each resample, alike for all that is compared.

    A site that lacks a class has no AUROC: it is left out of the metric and stays in the rest.

    Args:
        role: Of these sites.
        by_seed: For every seed the sites of the role, in one order.
    """
    seeds, resamples = len(by_seed), by_seed[0][0].value.shape[1] - 1
    drawn = generator(0, "seeds").integers(seeds, size=(seeds, resamples))
    value = np.stack([_over_sites([one.value for one in sites]) for sites in by_seed])
    stable = np.stack([_over_sites([one.stable for one in sites]) for sites in by_seed])
    others = [[one.reference for one in sites if one.reference is not None] for sites in by_seed]
    reference = _over_seeds(np.stack([_over_sites(sites) for sites in others]), drawn) if others[0] else None
    everything = [one for sites in by_seed for one in sites]
    return Pooled(
        role,
        len(by_seed[0]),
        sum(one.images for one in by_seed[0]),
        _over_seeds(value, drawn),
        _over_seeds(stable, drawn),
        reference,
        {name: _mean_defined(np.stack([one.means[name] for one in everything])) for name in MEANS},
        np.sum([np.isfinite(one.value[:, 0]) & np.isfinite(one.value[0, 0]) for one in everything], axis=0),
    )


def rows(pooled: Pooled, names: list[str], metric: str) -> list[Row]:
    """Give a row for the noise floor and one per corruption and severity."""
    drops = _drops(pooled, metric)
    return [
        {"corruption": name, "severity": severity, "role": pooled.role, **_columns(pooled, drops, [place])}
        for place, (name, severity) in enumerate(conditions(names))
        if (name, severity) != CLEAN
    ]


def summary(pooled: Pooled, names: list[str], metric: str) -> list[Row]:
    """Give a row per corruption, the mean over severities, the most harmful first.

    `relative_robustness` is the share of what lies above chance that is kept; with a reference model there are `ce` and
    `relative_ce` too.
    """
    drops, above = _drops(pooled, metric), _above_chance(pooled, metric)
    errors = _errors(pooled, metric)
    found = []
    for number, name in enumerate(names):
        columns = _columns(pooled, drops, _places(number))
        share = 1 - columns["drop"] / above if above > 0 else np.nan
        row = {"corruption": name, "family": CORRUPTIONS.load(name).family, "role": pooled.role, **columns}
        row["relative_robustness"] = share
        for key, ratios in errors.items():
            row |= _ended(key, ratios.each[number]) | {f"{key}_excluded": bool(ratios.excluded[number])}
        found.append(row)
    return sorted(found, key=lambda row: -row["drop"] if np.isfinite(row["drop"]) else np.inf)


def overall(pooled: Pooled, names: list[str], metric: str) -> Row:
    """Give one row: the mean over corruptions and severities, mAS, and with a reference mCE and relative mCE."""
    every = [place for number in range(len(names)) for place in _places(number)]
    drops = _drops(pooled, metric)
    found = {
        "role": pooled.role,
        "sites": pooled.sites,
        "images": pooled.images,
        **_ended("clean", pooled.value[0]),
        **_ended("drop", drops[every].mean(axis=0)),
        **_ended("mas", pooled.stable[every].mean(axis=0)),
        "signature_shift": float(pooled.means["signature_shift"][every].mean()),
        "defined": int(pooled.defined[every].min()),
    }
    for key, ratios in _errors(pooled, metric).items():
        left_out = [name for name, out in zip(names, ratios.excluded, strict=True) if out]
        found |= _ended(f"m{key}" if key == "ce" else "relative_mce", ratios.mean) | {
            f"{key}_excluded": ", ".join(left_out)
        }
    return found


def _columns(pooled: Pooled, drops: Doubles, places: list[int]) -> Row:
    """Give the columns of the mean over some conditions."""
    found = {
        "value": float(pooled.value[places, 0].mean()),
        "clean": float(pooled.value[0, 0]),
        **_ended("drop", drops[places].mean(axis=0)),
        **{name: float(pooled.means[name][places].mean()) for name in MEANS},
        **_ended("as_js", pooled.stable[places].mean(axis=0)),
        "defined": int(pooled.defined[places].min()),
    }
    if pooled.reference is not None:
        found["reference_value"] = float(pooled.reference[places, 0].mean())
    return found


def _drops(pooled: Pooled, metric: str) -> Doubles:
    """Give what is lost against the clean image under the same resample, [C, 1 + B]; more is worse."""
    return np.asarray((pooled.value[:1] - pooled.value) * _sign(metric))


def _errors(pooled: Pooled, metric: str) -> dict[str, CorruptionErrors]:
    if pooled.reference is None:
        return {}
    ours, theirs = (1 - each if _sign(metric) > 0 else each for each in (pooled.value, pooled.reference))
    shape = (-1, len(SEVERITIES), ours.shape[1])
    left, right = (each[FLOOR_ROWS:].reshape(shape) for each in (ours, theirs))
    return {
        "ce": corruption_errors(left, right),
        "relative_ce": corruption_errors(left - ours[0], right - theirs[0]),
    }


def _above_chance(pooled: Pooled, metric: str) -> float:
    return float(pooled.value[0, 0]) - CHANCE[metric] if metric in CHANCE else float("nan")


def _sign(metric: str) -> int:
    return 1 if METRICS.load(metric)().higher_is_better else -1


def _places(number: int) -> list[int]:
    start = FLOOR_ROWS + number * len(SEVERITIES)
    return list(range(start, start + len(SEVERITIES)))


def _ended(key: str, column: Doubles) -> Row:
    """Give a value with its 95 % interval over patients and seeds; NaN where it is undefined."""
    low, high = interval(column[1:])
    return {key: float(column[0]), f"{key}_low": low, f"{key}_high": high}


def _over_sites(sites: Sequence[Doubles]) -> Doubles:
    """Average over the sites where all is defined on the images as they are; sites resample apart from each other."""
    stacked = np.stack(sites)
    known = np.isfinite(stacked[:, :, 0]).all(axis=1)
    return np.asarray(stacked[known].mean(axis=0)) if known.any() else np.full(stacked.shape[1:], np.nan)


def _over_seeds(values: Doubles, drawn: NDArray[np.int64]) -> Doubles:
    """Average over seeds [S, C, 1 + B]: as they are in the first column, as drawn in the others."""
    resampled = np.take_along_axis(values[:, :, 1:], drawn[:, None, :], axis=0).mean(axis=0)
    return np.concatenate([values[:, :, :1].mean(axis=0), resampled], axis=1)


def _mean_defined(stacked: Doubles) -> Doubles:
    known = np.isfinite(stacked)
    total, count = np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))
