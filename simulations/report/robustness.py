"""Robustness curves: what is lost over the severity of every corruption, by family, at home and at held-out sites."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.corruptions import CORRUPTIONS
from simulations.corruptions.corrupt import FAMILIES, SEVERITIES
from simulations.report import words
from simulations.report.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    TINT,
    VERMILION,
    WIDTH,
    missing,
    span,
    styled,
)
from simulations.results import Results
from simulations.robustness import Robustness

TITLE = "What acquisition would do to the federated model"
TABLE = ""
STUDY = "corruptions"
COLUMNS = ("role", "corruption", "value", "drop", "drop_low", "drop_high", "relative_robustness", "as_js",
           "as_js_low", "as_js_high", "signature_shift", "flipped", "moved_alone", "flipped_alone")  # fmt: skip
LOOKS = tuple(zip((BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, INK, MUTED), "os^vDPX*", strict=True))
"""Colour and marker of the corruptions of one family, in the table's order: never by colour alone."""
ROLES = {"source": "source sites", "held-out": "held-out sites"}
ACROSS = 5

Row = dict[str, Any]


def describe(results: Results) -> str:
    """Caption: what is drawn, n and interval."""
    study = results.studies.get(STUDY)
    if study is None:
        return "The federated model was not judged under corruption."
    roles = study["roles"]
    judged = "; ".join(
        f"{words.count(row['sites'], ROLES[row['role']][:-1])}, {words.count(row['images'], 'image')}: attention that "
        f"stayed, mAS, {words.interval(_of(row, 'mas'))}"
        for row in roles
    )
    return (
        f"Loss of {words.title(study['metric'])} of the federated model against the clean test images, by severity, "
        f"{words.count(len(study['seeds']), 'seed')}; bars: 95 % interval, "
        f"{words.resampled(len(study['seeds']))}, the same for clean and corrupted. Simulated on the run's own images "
        f"({study['modality']}): what a scanner does may differ. {judged}."
    )


@styled
def draw(results: Results) -> Figure:
    """Draw the study of a run, if it was made."""
    study = results.studies.get(STUDY)
    if study is None:
        return missing("No corruptions were judged. Make the study: consilium study corruptions RUN --modality NAME.")
    return _families(study["rows"], study["metric"])


@styled
def draw_families(found: Robustness) -> Figure:
    """Draw one panel per family and role, a line per corruption."""
    return _families(found.rows, found.metric)


@styled
def draw_robustness(found: Robustness) -> Figure:
    """Draw one panel per corruption, the most harmful first: metric with its interval, and attention that stayed.

    Of the role that matters most: held-out sites where there are any. Severity 0 is the clean image.
    """
    role = found.roles[-1]["role"]
    shown = [row for row in found.summary if row["role"] == role]
    lines = -(-len(shown) // ACROSS)
    figure = Figure(figsize=(WIDTH, 1.55 * lines + 0.6), layout="constrained")
    panels = figure.subplots(lines, ACROSS, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, one in zip(panels, shown, strict=False):
        own = [row for row in found.rows if row["corruption"] == one["corruption"] and row["role"] == role]
        _one(axis, own, float(one["clean"]))
        axis.set_title(one["corruption"].replace("_", " "), fontsize=8)
    for axis in panels[len(shown) :]:
        axis.set_visible(False)
    for axis in panels[max(0, len(shown) - ACROSS) : len(shown)]:
        axis.tick_params(labelbottom=True)  # also where the panel below is empty
    figure.suptitle(
        f"{ROLES[role]}: {words.title(found.metric)} (line, 95 % interval of the loss) and attention that stayed, "
        f"AS_JS (dashed), over severity; 0 is clean",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    return figure


def _one(axis: Axes, own: list[Row], clean: float) -> None:
    severities = [0, *(row["severity"] for row in own)]
    sign = 1 if sum(row["clean"] - row["value"] - row["drop"] for row in own) < 1e-9 else -1
    ends = [[clean - sign * row[f"drop_{end}"] for row in own] for end in ("low", "high")]
    axis.fill_between(severities, [clean, *ends[0]], [clean, *ends[1]], color=TINT, linewidth=0)
    axis.axhline(clean, color=MUTED, linewidth=0.7)
    axis.plot(severities, [clean, *(row["value"] for row in own)], color=BLUE, marker="o", markersize=3)
    axis.plot(severities, [1.0, *(row["as_js"] for row in own)], color=VERMILION, linestyle="--", linewidth=1)
    axis.set_xticks(range(6))


def _families(rows: Sequence[Row], metric: str) -> Figure:
    roles = [role for role in ROLES if any(row["role"] == role for row in rows)]
    names = list(dict.fromkeys(row["corruption"] for row in rows if row["corruption"] in CORRUPTIONS))
    families = {
        family: [name for name in names if CORRUPTIONS.load(name).family == family]
        for family in FAMILIES
        if any(CORRUPTIONS.load(name).family == family for name in names)
    }
    longest = max(len(members) for members in families.values())
    figure = Figure(figsize=(WIDTH, 1.7 * len(roles) + 0.16 * longest + 0.75), layout="constrained")
    grid = figure.subplots(len(roles), len(families), squeeze=False, sharex=True, sharey=True)
    ends = [_number(row[key]) for row in rows for key in ("drop", "drop_low", "drop_high")]
    for line, role in zip(grid, roles, strict=True):
        line[0].set_ylabel(f"lost at {ROLES[role]}")
        for axis, (family, members) in zip(line, families.items(), strict=True):
            for number, name in enumerate(members):
                own = [row for row in rows if row["corruption"] == name and row["role"] == role]
                _curve(axis, own, number, len(members))
            axis.axhline(0, color=INK, linewidth=0.8)
            axis.set_xticks(SEVERITIES)
            axis.set_xlim(0.4, len(SEVERITIES) + 0.6)
            axis.set_ylim(*span([0.0, *ends]))
            axis.grid(axis="y")
            axis.set_title(family if role == roles[0] else "")
    for axis in grid[-1]:
        axis.set_xlabel("severity")
        axis.legend(loc="upper left", bbox_to_anchor=(-0.12, -0.3), fontsize=7, handlelength=1.6, borderaxespad=0)
    figure.suptitle(f"{words.title(metric)} lost against the clean images", fontsize=9, x=0.01, ha="left")
    return figure


def _curve(axis: Axes, own: list[Row], number: int, count: int) -> None:
    """Draw one corruption, aside of the others so that intervals do not cover each other."""
    colour, marker = LOOKS[number % len(LOOKS)]
    aside = (number - (count - 1) / 2) * 0.09
    places = [row["severity"] + aside for row in own]
    for place, row in zip(places, own, strict=True):
        axis.plot([place, place], [_number(row["drop_low"]), _number(row["drop_high"])], color=colour, linewidth=0.8)
    label = own[0]["corruption"].replace("_", " ")
    axis.plot(
        places, [_number(row["drop"]) for row in own], color=colour, marker=marker, markersize=3.2, linewidth=1.1,
        label=label,
    )  # fmt: skip


def _of(row: Row, key: str) -> Row:
    return {"value": row[key], "low": row[f"{key}_low"], "high": row[f"{key}_high"]}


def _number(value: float | None) -> float:
    """Read what a file says: null is undefined."""
    return math.nan if value is None else float(value)
