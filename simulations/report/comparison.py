"""Comparison: the federated model of several runs, site by site, with intervals."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.headline import MOST_SOURCES, NARROWEST, held_out, places
from simulations.report.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RC,
    SKY,
    TINT,
    VERMILION,
    Grid,
    in_last_row,
    mark,
    missing,
    panels,
    span,
)
from simulations.results import FEDERATED, Results

LOOKS = ((BLUE, "D"), (ORANGE, "o"), (GREEN, "s"), (VERMILION, "^"), (PURPLE, "v"), (SKY, "p"))
"""Run by its position to colour and marker; from the seventh on they come again, the labels do not."""


def all_places(runs: Sequence[Results]) -> list[str]:
    """Places of all runs, in the order of the first that has them."""
    return list(dict.fromkeys(place for results in runs for place in places(results)))


def labels(runs: Sequence[Results]) -> list[str]:
    """Name the runs; runs of one name by their position and identifier too."""
    names = [str(results.record["name"]) for results in runs]
    return [
        name if names.count(name) == 1 else f"{position}: {name} ({results.record['run']})"
        for position, (name, results) in enumerate(zip(names, runs, strict=True), start=1)
    ]


def draw(runs: Sequence[Results], metric: str) -> Figure:
    """Draw one panel per place, one row per run."""
    with matplotlib.rc_context(RC):
        order = all_places(runs)[: MOST_SOURCES + 3]
        rows = [results.rows("headline", metric=metric, method=FEDERATED) for results in runs]
        if not any(rows):
            return missing(f"No comparison: no run has a federated result in {metric}.")
        grid = Grid(columns=2, height=0.22 * len(runs) + 0.16, left=1.75, right=1.25, across=1.4, down=0.58)
        figure, axes = panels(len(order), grid)
        limits = span([row[end] for some in rows for row in some for end in ("low", "value", "high")], least=NARROWEST)
        for index, (axis, place) in enumerate(zip(axes, order, strict=True)):
            names = labels(runs) if index % 2 == 0 else [""] * len(runs)
            axis.set_yticks(range(len(runs)), [words.shorten(name, 25) for name in names])
            axis.set_ylim(len(runs) - 0.4, -0.6)
            axis.set_xlim(*limits)
            axis.set_title(words.shorten(place, 34))
            if held_out(runs[0], place):
                axis.set_facecolor(TINT)
            for y, some in enumerate(rows):
                _row(axis, y, place, next((row for row in some if row["site"] == place), None))
            if in_last_row(index, len(order), 2):
                axis.set_xlabel(words.title(metric))
        return figure


def _row(axis: Axes, y: int, place: str, row: dict[str, object] | None) -> None:
    axis.grid(axis="x")
    axis.spines["left"].set_visible(False)
    shown = words.interval(row, words.digits(str(row["metric"]))) if row else "not in this run"
    axis.text(1.03, y, shown, transform=axis.get_yaxis_transform(), va="center", fontsize=7.2,
              color=INK if row else MUTED)  # fmt: skip
    if row:
        mark(axis, y, LOOKS[y % len(LOOKS)], row, f"{place}|{y}")
