"""Matrix: the model trained at each site, judged at each site."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from simulations.report import words
from simulations.report.style import INK, PAPER, SCALE, contrasting, missing, slanted, span, styled
from simulations.results import Results

TITLE = "Trained here, judged there"
TABLE = "matrix"
ROOMY = 8
"""With more columns the intervals would be too small to read; they stand in the table."""


def describe(results: Results) -> str:
    """Caption: what is drawn, n and interval."""
    rows = results.rows("matrix", metric=results.primary)
    if not rows:
        return "No model has been judged away from home."
    ns = [row["n"] for row in rows]
    few = len({row["judged_on"] for row in rows}) <= ROOMY
    intervals = "Small print: 95 % interval, patients resampled" if few else "Intervals stand in the table"
    return (
        f"{words.direction(results.primary)} of each site's own model (row) on each site's test images (column); below "
        f"the line, models of all source sites. {intervals}; n = {min(ns):,} to "
        f"{max(ns):,} images per column. Framed: judged at home. * held out. Lighter is better."
    )


@styled
def draw(results: Results) -> Figure:
    """Draw a heat map with a number in every cell."""
    rows = results.rows("matrix", metric=results.primary)
    if not rows:
        return missing(f"No site by site matrix: the table has no row for {results.primary}. Judge local models.")
    trained, judged = _names(results, rows, "trained_on"), _names(results, rows, "judged_on")
    few = len(judged) <= ROOMY
    wide, tall = max((0.86 if few else 0.5) * len(judged), 2.2), (0.46 if few else 0.3) * len(trained)
    size = (wide + 3.4, tall + 0.75 + slanted(judged, 20))
    figure = Figure(figsize=size)
    axis = figure.add_axes((2.1 / size[0], 0.2 / size[1], wide / size[0], tall / size[1]))
    values = np.full((len(trained), len(judged)), np.nan)
    for row in rows:
        values[trained.index(row["trained_on"]), judged.index(row["judged_on"])] = row["value"]
    scale = colormaps[SCALE if words.higher_is_better(results.primary) else f"{SCALE}_r"].with_extremes(bad=PAPER)
    low, high = span([float(value) for value in values.ravel()], padding=0)
    image = axis.imshow(np.ma.masked_invalid(values), cmap=scale, vmin=low, vmax=high, aspect="auto")
    for row in rows:
        y, x = trained.index(row["trained_on"]), judged.index(row["judged_on"])
        _cell(axis, row, (y, x), contrasting(image.to_rgba(row["value"])), few)
    _frame(axis, results, trained, judged)
    bar = figure.add_axes(((2.1 + wide + 0.2) / size[0], 0.2 / size[1], 0.12 / size[0], tall / size[1]))
    figure.colorbar(image, cax=bar).outline.set_visible(False)
    bar.set_ylabel(words.title(results.primary))
    return figure


def _names(results: Results, rows: list[dict[str, Any]], side: str) -> list[str]:
    present = {row[side] for row in rows}
    known = [*results.sites("source"), *results.sites("held-out"), *results.methods]
    return [name for name in known if name in present] + sorted(present - set(known))


def _cell(axis: Axes, row: dict[str, Any], place: tuple[int, int], colour: str, few: bool) -> None:
    (y, x), decimals = place, words.digits(row["metric"])
    if words.number(row["value"]) == words.DASH:
        axis.text(x, y, words.DASH, ha="center", va="center", color=INK)
        return
    if not few:
        axis.text(
            x, y, words.number(row["value"], min(decimals, 2)), ha="center", va="center", color=colour, fontsize=8
        )
        return
    axis.text(x, y - 0.13, words.number(row["value"], decimals), ha="center", va="center", color=colour, fontsize=8.5)
    ends = f"{words.number(row['low'], decimals)}–{words.number(row['high'], decimals)}"
    axis.text(x, y + 0.22, ends, ha="center", va="center", color=colour, fontsize=6)


def _frame(axis: Axes, results: Results, trained: list[str], judged: list[str]) -> None:
    held = set(results.sites("held-out"))
    axis.set_yticks(range(len(trained)), [words.shorten(name, 24) for name in trained])
    axis.set_xticks(
        range(len(judged)),
        [words.shorten(name, 20) + (" *" if name in held else "") for name in judged],
        rotation=28,
        ha="left",
        rotation_mode="anchor",
    )
    axis.xaxis.tick_top()
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("trained on")
    axis.set_xlabel("judged on", loc="left")
    axis.xaxis.set_label_position("top")
    for side in axis.spines.values():
        side.set_visible(False)
    for y, name in enumerate(trained):
        if name in judged:
            x = judged.index(name)
            axis.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, edgecolor="#ffffff", linewidth=2.2))
            axis.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, edgecolor="#000000", linewidth=0.9))
    locals_ = sum(name in results.sites() for name in trained)
    if 0 < locals_ < len(trained):
        axis.axhline(locals_ - 0.5, color=PAPER, linewidth=5)
