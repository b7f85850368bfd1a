"""Adaptation: what each method gains or loses on each stream, and how far its attention moved."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulations.adaptation.looks import Looks
from simulations.report import words
from simulations.report.style import BLUE, GREY, INK, MUTED, VERMILION, Grid, in_last_row, missing, panels, span, styled

COLUMNS = 4
HEAT = "inferno"
TITLES = {"auroc": "AUROC", "balanced_accuracy": "Balanced accuracy at 0.5"}


def draw_gains(rows: Sequence[dict[str, Any]], single: Sequence[dict[str, Any]], order: Sequence[str]) -> Figure:
    """Draw one panel per stream and one row per method, that with the best worst condition on top.

    Args:
        rows: Of one phase and score, one per method and stream: gain, low, high.
        single: One per method, stream, site and batch size, with `gain`; drawn small.
        order: Methods from the top.
    """
    return _gains((rows, single, order))


@styled
def _gains(found: tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]], Sequence[str]]) -> Figure:
    rows, single, order = found
    kept = [row for row in rows if math.isfinite(row["gain"])]
    if not kept:
        return missing("No gain can be drawn: no method has a score that is defined.")
    streams = list(dict.fromkeys(row["stream"] for row in rows))
    grid = Grid(
        columns=COLUMNS, height=0.17 * len(order) + 0.1, left=1.15, right=0.15, across=0.18, top=0.62, bottom=0.5
    )
    figure, axes = panels(len(streams), grid)
    low, high = span([0.0, *(100 * row[end] for row in kept for end in ("low", "gain", "high"))], least=2.0)
    for index, (axis, stream) in enumerate(zip(axes, streams, strict=True)):
        _panel(axis, [row for row in kept if row["stream"] == stream], order)
        for row in single:
            if row["stream"] == stream and math.isfinite(row["gain"]):
                axis.plot([100 * row["gain"]], [order.index(row["method"])], "|", color=MUTED, markersize=4, alpha=0.5)
        axis.set_title(words.shorten(stream, 26))
        axis.set_xlim(low, high)
        first = index % COLUMNS == 0
        axis.set_yticks(range(len(order)), [words.shorten(name, 20) if first else "" for name in order])
        axis.tick_params(labelbottom=in_last_row(index, len(streams), COLUMNS) or index + COLUMNS >= len(streams))
    when = "on patients who did not come" if rows[0]["phase"] == "post" else "while the stream came"
    title = f"{TITLES[rows[0]['score']]}, adapted minus shipped, points, {when}; best worst condition on top"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure


def _panel(axis: Axes, rows: list[dict[str, Any]], order: Sequence[str]) -> None:
    axis.grid(axis="x")
    axis.spines["left"].set_visible(False)
    axis.axvline(0, color=INK, linewidth=0.9)
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.locator_params(axis="x", nbins=5)
    for y in {*range(len(order))} - {order.index(row["method"]) for row in rows}:
        axis.text(0, y, " undefined", va="center", fontsize=6.5, color=MUTED)
    for row in rows:
        y = order.index(row["method"])
        colour = VERMILION if row["high"] < 0 else BLUE if row["low"] > 0 else GREY
        axis.plot([100 * row["low"], 100 * row["high"]], [y, y], color=colour, linewidth=1.6)
        label = f"{row['stream']}|{row['method']}"
        axis.plot([100 * row["gain"]], [y], "o", color=colour, markersize=4.2, linestyle="none", label=label)


@styled
def draw_looks(found: Looks) -> Figure:
    """Draw attention before and after adaptation: one row per image and one of mean maps, a column per method."""
    names = list(found.maps)
    count = len(found.images)
    figure = Figure(figsize=(1.05 * (len(names) + 1) + 0.5, 1.12 * (count + 1) + 0.5))
    axes = figure.subplots(count + 1, len(names) + 1, squeeze=False)
    for line, axis in enumerate(axes.ravel()):
        row, column = divmod(line, len(names) + 1)
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
        if column == 0:
            axis.set_ylabel("mean over images" if row == count else words.shorten(found.captions[row], 18), fontsize=7)
            if row < count:
                axis.imshow(found.images[row], cmap="gray", vmin=0, vmax=255)
            continue
        maps, mean = found.maps[names[column - 1]]
        _heat(axis, mean if row == count else maps[row], found.images[row] if row < count else None)
        if row == 0:
            axis.set_title(words.shorten(names[column - 1], 14), fontsize=8)
    figure.suptitle(words.shorten(found.title, 110), fontsize=8.5, x=0.01, ha="left")
    figure.subplots_adjust(left=0.06, right=0.99, top=0.86, bottom=0.02, wspace=0.06, hspace=0.06)
    return figure


def _heat(axis: Axes, attention: NDArray[np.float64], image: NDArray[np.uint8] | None) -> None:
    """Show a map over its grey image, brightest where it is densest, at least three times an even spread."""
    lift = attention * attention.size
    strength = lift / max(float(lift.max()), 3.0)
    if image is None:
        axis.imshow(strength, cmap=HEAT, vmin=0, vmax=1)
        return
    grey = image if image.ndim == 2 else image.mean(axis=2)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255)
    heat = colormaps[HEAT](strength)
    heat[..., 3] = 0.15 + 0.65 * strength
    axis.imshow(heat)
