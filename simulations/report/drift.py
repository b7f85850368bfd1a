"""The drift atlas in pictures: what looks alike to attention, and what the atlas says of unseen patients."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.shift.drift_atlas import DriftAtlas
from common.shift.resemblance import likeness
from simulations.drift import Drift
from simulations.drift_trials import OUTCOMES
from simulations.report.style import INK, RULE, SCALE, contrasting, missing, styled

CELL = 0.3
LEFT, TOP, RIGHT, BOTTOM = 1.35, 1.2, 0.8, 0.35


@styled
def draw_likeness(atlas: DriftAtlas) -> Figure:
    """Draw the largest cosine between the displacements of every two corruptions; 1 cannot be told apart."""
    alike = likeness(atlas.entries)
    figure, axis = _sheet(len(atlas.names), len(atlas.names))
    image = axis.imshow(alike, cmap=SCALE, vmin=0, vmax=1)
    for (y, x), value in np.ndenumerate(alike):
        if y != x and value >= atlas.least_cosine:
            colour = contrasting(image.to_rgba(alike[y, x]))
            axis.text(x, y, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=6, color=colour)
    _named(axis, _words(atlas.names), _words(atlas.names))
    _family_lines(axis, atlas, both=True)
    width, height = figure.get_size_inches()
    bar = figure.add_axes(((width - 0.6) / width, BOTTOM / height, 0.12 / width, CELL * len(atlas.names) / height))
    figure.colorbar(image, cax=bar).outline.set_visible(False)
    bar.set_ylabel(f"cosine; written from {atlas.least_cosine:.2f}, what a name needs")
    return figure


@styled
def draw_confusion(drift: Drift) -> Figure:
    """Draw what unseen corrupted patients are told, in shares of a row: with the whole atlas, and with a gap in it."""
    atlas, trials = drift.atlas, drift.trials
    if trials is None:
        return missing("No trials: a finished atlas was taken. Learn one to see how far it can be trusted.")
    columns = _words((*atlas.names, *OUTCOMES))
    count = len(atlas.names)
    panel = LEFT + CELL * len(columns)
    size = (2 * panel + RIGHT, TOP + CELL * count + BOTTOM)
    figure = Figure(figsize=size)
    for place, (known, title) in enumerate(((True, "all are in the atlas"), (False, "the one done is not in it"))):
        axis = figure.add_axes(
            ((LEFT + place * panel) / size[0], BOTTOM / size[1], CELL * len(columns) / size[0], CELL * count / size[1])
        )
        found = trials.confusion(atlas.names, known)
        shares = found / np.maximum(found.sum(axis=1, keepdims=True), 1)
        _shares(axis, shares)
        _named(axis, _words(atlas.names), columns)
        _family_lines(axis, atlas, both=False)
        axis.axvline(count - 0.5, color=INK, linewidth=1)
        axis.set_xlabel(f"{title}: done (rows), told (columns), percent of a row")
    return figure


def _shares(axis: Axes, shares: NDArray[np.float64]) -> None:
    image = axis.imshow(np.where(shares > 0, shares, np.nan), cmap=colormaps[SCALE], vmin=0, vmax=1)
    for (y, x), value in np.ndenumerate(shares):
        if value > 0:
            colour = contrasting(image.to_rgba(shares[y, x]))
            axis.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=6, color=colour)


def _sheet(rows: int, columns: int) -> tuple[Figure, Axes]:
    size = (LEFT + CELL * columns + RIGHT, TOP + CELL * rows + BOTTOM)
    figure = Figure(figsize=size)
    axis = figure.add_axes((LEFT / size[0], BOTTOM / size[1], CELL * columns / size[0], CELL * rows / size[1]))
    return figure, axis


def _named(axis: Axes, rows: list[str], columns: list[str]) -> None:
    axis.set_yticks(range(len(rows)), rows, fontsize=7.5)
    axis.set_xticks(range(len(columns)), columns, fontsize=7.5, rotation=55, ha="left", rotation_mode="anchor")
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    for edge in axis.spines.values():
        edge.set_visible(False)


def _family_lines(axis: Axes, atlas: DriftAtlas, both: bool) -> None:
    """Part the families, which stand together in the table."""
    for place in range(1, len(atlas.families)):
        if atlas.families[place] != atlas.families[place - 1]:
            axis.axhline(place - 0.5, color=RULE, linewidth=0.8)
            axis.axvline(place - 0.5, color=RULE, linewidth=0.8)
    if both:
        axis.set_xlabel("largest cosine over all pairs of severities")


def _words(names: tuple[str, ...]) -> list[str]:
    return [name.replace("_", " ") for name in names]
