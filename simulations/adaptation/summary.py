"""What the study says of each method: gain, worst condition, regret, harm, calibration, cost, and its safety."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.metrics.bootstrap import interval, over_seeds
from common.seeds import generator
from simulations.adaptation.bench import COUNTS
from simulations.adaptation.cells import NONE, Cell
from simulations.adaptation.scores import AFTERWARDS, PHASES, RESAMPLED
from simulations.adaptation.study import Adapted
from simulations.streams.make import SOURCE_STREAMS

Row = dict[str, Any]
POINT = 0.01
"""One percentage point: a loss of more is harm, and a lower bound above minus that is no inferiority."""
JUDGED = ("auroc", "balanced_accuracy")
SORTED = "label-sorted"


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """One method on one stream at one site in one batch size, over all training seeds, minus no adaptation.

    `gain` and `resampled` [B] hold columns of RESAMPLED, positive where the method is better for scores that should be
    high, as measured for ECE; `reason` says why there are none.
    """

    cell: Cell
    rows: list[Row]
    bare: list[Row]
    gain: dict[str, float]
    resampled: dict[str, NDArray[np.float64]]
    reason: str

    @property
    def name(self) -> str:
        """Say it in words."""
        return f"{self.cell.stream} · {self.cell.site} · batch {self.cell.batch}"


def conditions(found: Adapted) -> list[Condition]:
    """Put the seeds of every condition together; `none` has no condition, it is the zero."""
    groups: dict[Cell, list[Cell]] = {}
    for cell in found.cells:
        if cell.method != NONE:
            key = Cell(0, cell.training, cell.site, cell.stream, cell.batch, cell.method)
            groups.setdefault(key, []).append(cell)
    return [_condition(found, group) for group in groups.values()]


def _condition(found: Adapted, group: list[Cell]) -> Condition:
    rows = [found.record.row(cell) for cell in group]
    bare = [found.record.row(cell.place) for cell in group]
    reason = next((row["reason"] for row in (*rows, *bare) if row["reason"]), "")
    if reason:
        return Condition(group[0], rows, bare, dict.fromkeys(RESAMPLED, math.nan), {}, reason)
    ours, theirs = ([found.record.resampled(cell) for cell in side] for side in (group, [c.place for c in group]))
    gain, resampled = {}, {}
    for name in RESAMPLED:
        gain[name] = float(np.mean([row[name] - known[name] for row, known in zip(rows, bare, strict=True)]))
        pairs = zip(ours, theirs, strict=True)
        each = np.stack([np.asarray(one[name], np.float64) - other[name] for one, other in pairs])
        # The same draws of seeds for every condition: a seed is one model, wherever it is judged.
        resampled[name] = over_seeds(each, generator(0, "seeds"))
    return Condition(group[0], rows, bare, gain, resampled, reason)


def condition_rows(found: Sequence[Condition]) -> list[Row]:
    """Give a row per condition: every kept score's gain with its interval, and the values behind it."""
    return [_row(each) for each in found]


def _row(each: Condition) -> Row:
    cell = each.cell
    row: Row = {
        "method": cell.method,
        "training": cell.training,
        "site": cell.site,
        "stream": cell.stream,
        "batch": cell.batch,
    }
    for name in RESAMPLED:
        low, high = interval(each.resampled[name]) if each.resampled else (math.nan, math.nan)
        row |= {f"none_{name}": _mean(each.bare, name), name: _mean(each.rows, name)}
        row |= {f"gain_{name}": each.gain[name], f"low_{name}": low, f"high_{name}": high}
    row |= {"relative_time": _mean(each.rows, "relative_time")}
    row |= {name: _mean(each.rows, name) for name in COUNTS}
    return {**row, "seeds": len(each.rows), "images": each.rows[0]["images"], "reason": each.reason}


def summary(found: Sequence[Condition]) -> list[Row]:
    """Give a row per method, phase and score, the methods with the best worst condition first."""
    methods = list(dict.fromkeys(each.cell.method for each in found))
    rows = [
        _of_method(method, phase, score, [each for each in found if each.cell.method == method])
        for phase in PHASES[::-1]
        for score in JUDGED
        for method in methods
    ]
    place = {name: number for number, name in enumerate(by_worst(found))}
    return sorted(rows, key=lambda row: (PHASES.index(row["phase"]) == 0, row["score"], place[row["method"]]))


def by_worst(found: Sequence[Condition], column: str = "post_balanced_accuracy") -> list[str]:
    """Name the methods, the one whose worst condition is best first; those that never worked last."""
    worst: dict[str, float] = {}
    for each in found:
        value = each.gain[column]
        known = worst.setdefault(each.cell.method, math.inf)
        worst[each.cell.method] = min(known, value) if math.isfinite(value) else known
    return sorted(worst, key=lambda name: (math.isinf(worst[name]), -worst[name]))


def _of_method(method: str, phase: str, score: str, own: list[Condition]) -> Row:
    column = f"{phase}_{score}"
    # Where labels come sorted, scores drift with the labels and order them by time: that is no skill.
    counted = [each for each in own if not (each.cell.stream == SORTED and column == "online_auroc")]
    kept = [each for each in counted if math.isfinite(each.gain[column])]
    gains = np.array([each.gain[column] for each in kept])
    low, high = _interval(kept, column)
    row: Row = {"method": method, "phase": phase, "score": score, "conditions": len(kept)}
    row |= {"undefined": len(counted) - len(kept), "mean_gain": _or_nan(np.mean, gains), "low": low, "high": high}
    worst = kept[int(gains.argmin())] if kept else None
    row |= {"worst": worst.gain[column] if worst else math.nan, "worst_condition": worst.name if worst else ""}
    row |= {"regret": _or_nan(np.mean, -gains.clip(max=0)), "harmed": _or_nan(np.mean, gains < -POINT)}
    change = [_mean(each.rows, f"{phase}_ece") - _mean(each.bare, f"{phase}_ece") for each in kept]
    row |= {"ece_change": _or_nan(np.mean, np.array(change))}
    row |= {"relative_time": _or_nan(np.median, np.array([_mean(each.rows, "relative_time") for each in kept]))}
    row |= {name: sum(each_row[name] for each in kept for each_row in each.rows) for name in COUNTS}
    never = "" if any(not each.reason for each in own) else own[0].reason
    return {**row, "reason": never}


def gains(found: Sequence[Condition]) -> list[Row]:
    """Give a row per method, stream and score: the mean gain over trainings, sites and batch sizes, its interval.

    Online AUROC stands beside online balanced accuracy of the same stream, never alone.
    """
    groups: dict[tuple[str, str], list[Condition]] = {}
    for each in found:
        groups.setdefault((each.cell.method, each.cell.stream), []).append(each)
    return [
        _gain(method, stream, column, own)
        for (method, stream), own in groups.items()
        for column in RESAMPLED
        if column.endswith(JUDGED)
    ]


def _gain(method: str, stream: str, column: str, own: list[Condition]) -> Row:
    kept = [each for each in own if math.isfinite(each.gain[column])]
    phase, _, score = column.partition("_")
    values = np.array([each.gain[column] for each in kept])
    low, high = _interval(kept, column)
    head: Row = {"method": method, "stream": stream, "phase": phase, "score": score, "conditions": len(kept)}
    return {
        **head,
        "undefined": len(own) - len(kept),
        "gain": _or_nan(np.mean, values),
        "low": low,
        "high": high,
        "worst": _or_nan(np.min, values),
    }


def safety(found: Sequence[Condition]) -> list[Row]:
    """Test, per method, score and stream on which nothing has to be adapted to, whether less than a point is lost.

    A stream passes when the lower end of its 95 % interval, averaged over trainings and batch sizes, lies above -1
    point; without an interval it does not.
    """
    methods = list(dict.fromkeys(each.cell.method for each in found))
    rows = []
    for method in methods:
        own = [each for each in found if each.cell.method == method and each.cell.stream in SOURCE_STREAMS]
        for score in JUDGED:
            for stream in dict.fromkeys(each.cell.stream for each in own):
                rows.append(_safe(method, score, stream, [each for each in own if each.cell.stream == stream]))
    return rows


def _safe(method: str, score: str, stream: str, own: list[Condition]) -> Row:
    column = f"{AFTERWARDS}_{score}"
    gains = np.array([each.gain[column] for each in own])
    low, high = _interval(own, column) if np.isfinite(gains).all() else (math.nan, math.nan)
    patients = min(row["judged_patients"] for each in own for row in each.rows)
    head: Row = {"method": method, "score": score, "stream": stream, "gain": float(gains.mean())}
    reason = next((each.reason for each in own if each.reason), "")
    return {**head, "low": low, "high": high, "patients": patients, "passes": bool(low > -POINT), "reason": reason}


def _interval(own: Sequence[Condition], column: str) -> tuple[float, float]:
    """Average over conditions draw by draw: conditions on the same patients share their draws."""
    drawn = [each.resampled[column] for each in own if each.resampled]
    return interval(np.mean(drawn, axis=0)) if drawn else (math.nan, math.nan)


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _or_nan(of: Any, values: NDArray[Any]) -> float:
    return float(of(values)) if len(values) else math.nan


def safe_methods(rows: Sequence[Row]) -> Iterator[tuple[str, bool]]:
    """Say of each method whether it passes everywhere."""
    for method in dict.fromkeys(row["method"] for row in rows):
        yield method, all(row["passes"] for row in rows if row["method"] == method)
