"""Overlays: where the model looked beside where the lesion is, some test images of every site."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from simulations.overlay import Overlay
from simulations.report import words
from simulations.report.style import MUTED, ORANGE, SKY, missing, styled
from simulations.results import Results

TITLE = "Where the model looked"
TABLE = ""
MOST_SITES, MOST_EACH = 12, 3
"""More pictures than these stay in `overlays.npz`."""

HEAT, EVEN = "inferno", 3.0
"""Brightest is so many times an even spread, or the image's most if that is more: a flat map stays dim."""
FINEST = 180
"""Pixels a side that a panel can show one by one."""

MARGIN, PANEL, GAP, APART, ROW = 0.05, 0.93, 0.03, 0.2, 1.68
"""Left margin, side of a panel, gap inside a triple, gap between triples, height of a row; inches."""


def describe(results: Results) -> str:
    """Caption: what is drawn, n and how to read it."""
    if not results.overlays:
        return "No attention overlay was kept."
    shown = sum(len(group) for group in _groups(results).values())
    attention_sites = words.listed(sorted({overlay.attention_site for overlay in results.overlays}))
    return (
        f"{words.count(shown, 'test image')} of the federated model, drawn by lot, those with a finding first, never "
        f"by what the model says. Three pictures each: the image; the expert's outline (solid) and, where the task is "
        f"to segment, the model's (dashed); attention at {attention_sites} on the grey image, bright where it is "
        f"densest, with the expert's outline. Inside the outline: share of all attention that falls there; lift: that "
        f"share over the outline's share of the image, 1 is chance. Single images illustrate; they prove nothing."
    )


@styled
def draw(results: Results) -> Figure:
    """Draw one row per site, up to three images a row."""
    groups = _groups(results)
    if not groups:
        return missing("No attention overlays: the run kept none. The model may have no attention site.")
    across = max(len(group) for group in groups.values())
    triple = 3 * PANEL + 2 * GAP
    width, height = MARGIN + across * (triple + APART) - APART, len(groups) * ROW + 0.5
    figure = Figure(figsize=(width, height))
    # One set of axes in inches, from the top left corner: one for each picture would take ten times as long.
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    for row, (site, group) in enumerate(groups.items()):
        top = row * ROW
        held = " (held out)" if group[0].role == "held-out" else ""
        axis.text(MARGIN, top + 0.18, words.shorten(site, 60) + held, fontweight="bold", fontsize=9)
        for index, overlay in enumerate(group):
            left = MARGIN + index * (triple + APART)
            _triple(axis, overlay, left, top + 0.27)
            axis.text(left, top + 0.34 + PANEL, _legend(overlay), va="top", fontsize=7.2)
    _bar(figure, width, height)
    axis.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    return figure


def _groups(results: Results) -> dict[str, list[Overlay]]:
    """Overlays by site: held-out sites first, then in the record's order."""
    order = [*results.sites("held-out"), *results.sites("source")]
    order += sorted({overlay.site for overlay in results.overlays} - set(order))
    groups = {site: [overlay for overlay in results.overlays if overlay.site == site][:MOST_EACH] for site in order}
    return dict([(site, group) for site, group in groups.items() if group][:MOST_SITES])


def _triple(axis: Axes, overlay: Overlay, left: float, top: float) -> None:
    """Draw the image, the image with outlines, and the attention, each one inch wide at most, shape kept."""
    colour = overlay.image
    grey = colour if colour.ndim == 2 else np.asarray(colour.mean(axis=2), dtype=np.uint8)
    rows, columns = grey.shape
    high, wide = PANEL * rows / max(rows, columns), PANEL * columns / max(rows, columns)
    boxes = [(x, x + wide, top + high, top) for x in (left + k * (PANEL + GAP) for k in range(3))]
    # Square pixels as they are; where a picture has more than the page can show, dropping some would thin vessels.
    drawn = "nearest" if max(rows, columns) <= FINEST else "antialiased"
    for box, picture in zip(boxes, (colour, colour, grey), strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation=drawn, extent=box)
    lift = overlay.attention * overlay.attention.size
    strength = lift / max(float(lift.max()), EVEN)
    heat = colormaps[HEAT](strength)
    heat[..., 3] = 0.15 + 0.65 * strength
    axis.imshow(heat, interpolation=drawn, extent=boxes[2])
    _outline(axis, overlay.mask, boxes[1], ORANGE, "solid")
    _outline(axis, overlay.mask, boxes[2], "#ffffff", "solid")
    _outline(axis, overlay.prediction, boxes[1], SKY, "dashed")
    if overlay.mask is None or not overlay.mask.any():
        text = "no outline given" if overlay.mask is None else "nothing to outline"
        dark = {"facecolor": "#000000", "alpha": 0.55, "linewidth": 0, "pad": 1.5}
        x = (boxes[1][0] + boxes[1][1]) / 2
        axis.text(x, boxes[1][2] - 0.05, text, ha="center", fontsize=7, color="#ffffff", bbox=dark)


def _outline(axis: Axes, mask: Any, box: tuple[float, float, float, float], colour: str, style: str) -> None:
    """Draw the border of a mask inside a box (left, right, bottom, top); pixel centres are half a pixel in."""
    if mask is None or not 0 < int((mask > 0).sum()) < mask.size:
        return
    left, right, bottom, top = box
    y, x = (np.arange(size) + 0.5 for size in mask.shape)
    across = left + (right - left) * x / mask.shape[1]
    down = top + (bottom - top) * y / mask.shape[0]
    inside = mask > 0
    border = np.count_nonzero(inside[1:] != inside[:-1]) + np.count_nonzero(inside[:, 1:] != inside[:, :-1])
    thick = 1.3 if border < 0.06 * mask.size else 0.5  # thick lines would cover the vessels that they outline
    axis.contour(across, down, inside, levels=[0.5], colors=[colour], linewidths=thick, linestyles=style)


def _legend(overlay: Overlay) -> str:
    said = words.shorten(" · ".join(part for part in (overlay.label, overlay.caption) if part), 44)
    first = " · ".join(part for part in (said, _overlap(overlay)) if part)
    energy, lift = overlay.in_mask()
    if words.number(lift) == words.DASH:
        return first
    inside = f"inside the outline {words.number(100 * energy, 1)} % of attention, lift {words.number(lift, 1)}"
    return f"{first}\n{inside}".strip()


def _overlap(overlay: Overlay) -> str:
    """Give the Dice coefficient of the two outlines, all foreground classes as one."""
    if overlay.mask is None or overlay.prediction is None:
        return ""
    if not overlay.prediction.any():
        return "the model outlined nothing"
    mask, found = overlay.mask > 0, overlay.prediction > 0
    return f"Dice of this image {words.number(2 * (mask & found).sum() / (mask.sum() + found.sum()), 2)}"


def _bar(figure: Figure, width: float, height: float) -> None:
    axis = figure.add_axes((0.25 / width, 0.36 / height, 1.6 / width, 0.1 / height))
    bar = figure.colorbar(ScalarMappable(cmap=HEAT), cax=axis, orientation="horizontal", ticks=[0, 1])
    bar.outline.set_visible(False)
    bar.ax.set_xticklabels(["none", "most"], fontsize=7.5)
    bar.ax.tick_params(length=0)
    scale = f"attention; brightest: {EVEN:.0f} times an even spread, or the image's most if that is more"
    figure.text(2.05 / width, 0.36 / height, scale, fontsize=7.5, color=MUTED)
