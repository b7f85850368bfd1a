"""Shift: how far apart the sites' attention is, in one matrix; what is beyond chance is marked."""

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulations.report import words
from simulations.report.style import PAPER, SCALE, contrasting, slanted, styled
from simulations.shift import Shift

LEVEL = 0.05
LEAST = (0.01, 0.05)
"""Top of each scale at least: what is near nothing shall not shine. ADD-W goes to 1, D²⊥ counts in variances."""


@styled
def draw_shift(found: Shift) -> Figure:
    """Draw ADD-W above the diagonal and D²⊥ below, each with its own scale of colours; a star is q ≤ 5 %."""
    names = [words.shorten(name, 20) for name in found.sites]
    side = max(0.62 * len(names), 2.4)
    size = (side + 4.4, side + 1.2 + slanted(list(found.sites), 20))
    figure = Figure(figsize=size)
    axis = figure.add_axes((1.7 / size[0], 0.6 / size[1], side / size[0], side / size[1]))
    upper, lower, stars = _matrices(found)
    scale = colormaps[SCALE].with_extremes(bad=(0, 0, 0, 0))
    axis.set_facecolor(PAPER)
    titles = ("ADD-W (above the diagonal)", "D²⊥ (below)")
    for number, (matrix, title) in enumerate(zip((upper, lower), titles, strict=True)):
        matrix = matrix.clip(min=0)  # an estimate without bias falls below 0 by half, where nothing moved
        top = max(float(np.nanmax(matrix)), LEAST[number])
        image = axis.imshow(np.ma.masked_invalid(matrix), cmap=scale, vmin=0, vmax=top)
        for y, x in zip(*np.nonzero(~np.isnan(matrix)), strict=True):
            colour = contrasting(image.to_rgba(matrix[y, x]))
            mark = "*" if stars[y, x] else ""
            axis.text(x, y, f"{matrix[y, x]:.3f}{mark}", ha="center", va="center", color=colour, fontsize=7.5)
        bar = figure.add_axes(((1.9 + side + 1.05 * number) / size[0], 0.6 / size[1], 0.12 / size[0], side / size[1]))
        figure.colorbar(image, cax=bar).outline.set_visible(False)
        bar.set_ylabel(title)
    axis.set_yticks(range(len(names)), names)
    axis.set_xticks(range(len(names)), names, rotation=28, ha="left", rotation_mode="anchor")
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    figure.text(0.02, 0.12 / size[1], "* beyond chance: q ≤ 0.05 (permutation of patients on D²⊥).", fontsize=7.5)
    return figure


def _matrices(found: Shift) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    count = len(found.sites)
    upper, lower = np.full((count, count), np.nan), np.full((count, count), np.nan)
    stars = np.zeros((count, count), bool)
    for row in found.pairs:
        y, x = found.sites.index(row["first"]), found.sites.index(row["second"])
        upper[y, x], lower[x, y] = row["add_w"], row["d2_projected"]
        stars[y, x] = stars[x, y] = row["q"] <= LEVEL
    return upper, lower, stars


@styled
def draw_blocks(found: Shift) -> Figure:
    """Draw how far every block of the signature moved, a column for each pair of sites; where it can be, by head."""
    labels = list(dict.fromkeys((row["block"], row["head"]) for row in found.blocks))
    pairs = [f"{row['first']} · {row['second']}" for row in found.pairs]
    values = np.zeros((len(labels), len(pairs)))
    for row in found.blocks:
        values[labels.index((row["block"], row["head"])), pairs.index(f"{row['first']} · {row['second']}")] = row["w"]
    width, height = 3.4 + 0.42 * len(pairs), 0.9 + 0.21 * len(labels) + slanted(pairs, 34)
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((2.2 / width, 0.3 / height, 0.42 * len(pairs) / width, 0.21 * len(labels) / height))
    image = axis.imshow(values, aspect="auto", cmap=SCALE, vmin=0, vmax=max(float(values.max()), LEAST[0]))
    bar = figure.add_axes((1 - 0.95 / width, 0.3 / height, 0.12 / width, 0.21 * len(labels) / height))
    figure.colorbar(image, cax=bar).outline.set_visible(False)
    bar.set_ylabel("W of the block, 0 to 1")
    axis.set_yticks(range(len(labels)), [f"{block}, head {head}" if head else block for block, head in labels])
    axis.set_xticks(
        range(len(pairs)), [words.shorten(pair, 34) for pair in pairs], rotation=28, ha="left", rotation_mode="anchor"
    )
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    return figure
