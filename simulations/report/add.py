"""ADD: how far apart the sites' attention lies, and which blocks of the signature moved."""

from statistics import fmean
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    SCALE,
    VERMILION,
    WIDTH,
    contrasting,
    missing,
    slanted,
    span,
    styled,
)
from simulations.results import Results

TITLE = "How far apart the sites' attention lies"
TABLE = "add"
MOST_BLOCKS = 12
KINDS = {
    "histogram": (BLUE, "o"),
    "map": (ORANGE, "s"),
    "shares": (VERMILION, "v"),
    "profile": (GREEN, "^"),
    "scalars": (PURPLE, "D"),
}


def describe(results: Results) -> str:
    """Caption: what is drawn and n."""
    rows = results.rows("add")
    if not rows:
        return "No attention signature was measured."
    sites = len({row["site_a"] for row in rows} | {row["site_b"] for row in rows})
    blocks = len({row["block"] for row in results.rows("add_blocks")})
    pairs = sites * (sites - 1) // 2
    more = f"; the {MOST_BLOCKS} that moved most of {blocks}" if blocks > MOST_BLOCKS else ""
    return (
        f"Left: attention distribution distance (ADD-W) between the signatures of {sites} sites; 0 is alike, lighter "
        f"is further apart. Right: distance of each block of the signature{more}, transport for histograms and maps, "
        f"total variation for shares, mean absolute difference else; small marks: one pair of sites each "
        f"({words.count(pairs, 'pair')}), the line: their mean. One measurement per site, so without interval or "
        f"floor: distances carry the chance of which "
        f"patients were measured, and sites that are alike would not lie at 0."
    )


@styled
def draw(results: Results) -> Figure:
    """Draw the matrix of sites and, beside it, the blocks."""
    rows = [row for row in results.rows("add") if words.number(row["add_w"]) != words.DASH]
    if not rows:
        return missing(
            "No ADD matrix: the add table is empty. Measure attention (attention.every) at two sites or more, by a "
            "signature of at most 256 entries."
        )
    present = {row["site_a"] for row in rows} | {row["site_b"] for row in rows}
    order = [site for site in results.sites() if site in present]
    order += sorted(present - set(order))
    blocks = _blocks(results)
    top = 0.3 + slanted(order, 20)
    side = min(max(0.46 * len(order), 1.6), 3.4)
    width, height = WIDTH, max(side, 0.24 * len(blocks)) + top + 0.5
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((1.75 / width, (height - top - side) / height, side / width, side / height))
    _matrix(axis, order, rows)
    if blocks:
        left, tall = 1.75 + side + 2.05, 0.24 * len(blocks)
        right = figure.add_axes(
            (left / width, (height - top - tall) / height, (width - left - 0.2) / width, tall / height)
        )
        _moved(right, blocks)
    return figure


def _blocks(results: Results) -> list[tuple[str, str, list[float]]]:
    """Blocks with their kind and finite distances, those that moved most first."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in results.rows("add_blocks"):
        if words.number(row["w"]) != words.DASH and row["site_a"] != row["site_b"]:
            found.setdefault((row["block"], row["kind"]), []).append(row["w"])
    blocks = [(block, kind, values) for (block, kind), values in found.items()]
    return sorted(blocks, key=lambda block: -fmean(block[2]))[:MOST_BLOCKS]


def _matrix(axis: Axes, order: list[str], rows: list[dict[str, Any]]) -> None:
    values = np.full((len(order), len(order)), np.nan)
    np.fill_diagonal(values, 0)
    for row in rows:
        a, b = order.index(row["site_a"]), order.index(row["site_b"])
        values[a, b] = row["add_w"]
        if np.isnan(values[b, a]):
            values[b, a] = row["add_w"]
    scale = colormaps[SCALE].with_extremes(bad=PAPER)
    low, high = span([float(value) for value in values.ravel()], padding=0)
    image = axis.imshow(np.ma.masked_invalid(values), cmap=scale, vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
    size, times = (8 if len(order) <= 8 else 6), 1000 if high < 0.1 else 1
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = contrasting(image.to_rgba(value))
            axis.text(
                x, y, words.number(float(value) * times, 2), ha="center", va="center", fontsize=size, color=colour
            )
    names = [words.shorten(site, 20) for site in order]
    axis.set_yticks(range(len(order)), names)
    axis.set_xticks(range(len(order)), names, rotation=35, ha="left", rotation_mode="anchor")
    axis.xaxis.tick_top()
    axis.tick_params(axis="x", length=0)
    axis.set_xlabel(f"ADD-W between sites{', × 1000' if times > 1 else ''}", fontweight="bold")
    for edge in axis.spines.values():
        edge.set_visible(False)


def _moved(axis: Axes, blocks: list[tuple[str, str, list[float]]]) -> None:
    for y, (block, kind, values) in enumerate(blocks):
        colour, marker = KINDS.get(kind, (MUTED, "X"))
        axis.plot(values, [y] * len(values), marker=marker, markersize=3.4, color=colour, alpha=0.6, linestyle="none",
                  label=block)  # fmt: skip
        axis.plot([fmean(values)] * 2, [y - 0.32, y + 0.32], color=INK, linewidth=1.6)
    axis.set_yticks(
        range(len(blocks)), [f"{words.shorten(block, 22)} ({kind})" for block, kind, _ in blocks], fontsize=7.2
    )
    axis.set_ylim(len(blocks) - 0.4, -0.6)
    axis.set_xlim(left=0)
    axis.locator_params(axis="x", nbins=5)
    axis.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    axis.set_xlabel("distance per block")
    axis.set_title("Which blocks moved")
    axis.grid(axis="x")
    axis.spines["left"].set_visible(False)
