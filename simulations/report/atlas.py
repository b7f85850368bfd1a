"""The atlas of explanations: cases as a gallery with every map side by side, and the mean map per class and site."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulations.explain import Explained
from simulations.explain_site import SiteAtlas
from simulations.report import words
from simulations.report.style import ORANGE, missing, styled

MARGIN, PANEL, GAP, HEAD, LEGEND = 0.05, 1.2, 0.05, 0.28, 0.2
"""Margin, side of a panel, gap between panels, height of the names above and of the words below a row; inches."""
HEAT, EVEN = "inferno", 3.0
"""Brightest is so many times an even spread, or the map's most if that is more."""
NAMED = 1.3
"""Room for the names of sites, inches."""


@styled
def draw_gallery(atlas: SiteAtlas) -> Figure:
    """Draw one row per case: the image with the expert's outline, then every explanation over the grey image."""
    names = list(atlas.maps)
    if not atlas.images:
        return missing(f"No test image at {atlas.site}.")
    row = PANEL + LEGEND
    width = 2 * MARGIN + (1 + len(names)) * (PANEL + GAP) - GAP
    height = HEAD + len(atlas.images) * row + MARGIN
    figure, axis = _canvas(width, height)
    for column, name in enumerate(("image", *names)):
        axis.text(MARGIN + column * (PANEL + GAP), HEAD - 0.08, name, fontweight="bold", fontsize=8.5)
    for place, image in enumerate(atlas.images):
        top = HEAD + place * row
        grey = np.asarray(image if image.ndim == 2 else image.mean(axis=2), dtype=np.uint8)
        for column, name in enumerate(("", *names)):
            box = _box(MARGIN + column * (PANEL + GAP), top, grey.shape)
            axis.imshow(grey if name else image, cmap="gray", vmin=0, vmax=255, extent=box, interpolation="antialiased")
            if name:
                _heat(axis, atlas.maps[name][place], box, over=True)
            _outline(axis, atlas.masks[place], box, "#ffffff" if name else ORANGE)
        legend = words.shorten(atlas.legends[place], 60)
        axis.text(MARGIN, top + PANEL + 0.14, legend, fontsize=7.5)
    axis.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    return figure


def draw_means(found: Explained, name: str) -> Figure:
    """Draw one row per site, one column per class: the mean map over patients, and how many they are."""

    def draw(each: Explained) -> Figure:
        return _means(each, name)

    return styled(draw)(found)


def _means(found: Explained, name: str) -> Figure:
    classes = list(dict.fromkeys(key for atlas in found.atlas for key in atlas.means[name]))
    width = NAMED + len(classes) * (PANEL + GAP) + MARGIN
    height = HEAD + len(found.atlas) * (PANEL + LEGEND) + MARGIN
    figure, axis = _canvas(width, height)
    for column, label in enumerate(classes):
        axis.text(
            NAMED + column * (PANEL + GAP), HEAD - 0.08, words.shorten(label, 18), fontweight="bold", fontsize=8.5
        )
    for place, atlas in enumerate(found.atlas):
        top = HEAD + place * (PANEL + LEGEND)
        held = "\n(held out)" if atlas.role == "held-out" else ""
        axis.text(MARGIN, top + PANEL / 2, words.shorten(atlas.site, 18) + held, va="center", fontsize=8.5)
        for column, label in enumerate(classes):
            left = NAMED + column * (PANEL + GAP)
            if label not in atlas.means[name]:
                axis.text(left + PANEL / 2, top + PANEL / 2, "none", ha="center", va="center", fontsize=8)
                continue
            mean, count = atlas.means[name][label]
            _heat(axis, mean, _box(left, top, mean.shape), over=False)
            axis.text(left, top + PANEL + 0.14, words.count(count, "patient"), fontsize=7.5)
    axis.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    return figure


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Make one set of axes in inches, from the top left corner: one for each picture would take ten times as long."""
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    return figure, axis


def _box(left: float, top: float, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Give left, right, bottom and top of a picture that keeps its shape."""
    high, wide = (PANEL * side / max(shape) for side in shape)
    return left, left + wide, top + high, top


def _heat(axis: Axes, each: NDArray[np.floating], box: tuple[float, float, float, float], over: bool) -> None:
    lift = each * each.size
    strength = lift / max(float(lift.max()), EVEN)
    heat: Any = colormaps[HEAT](strength)
    if over:
        heat[..., 3] = 0.15 + 0.65 * strength
    axis.imshow(heat, interpolation="antialiased", extent=box)


def _outline(
    axis: Axes, mask: NDArray[np.bool_], box: tuple[float, float, float, float], colour: str, width: float = 1.1
) -> None:
    """Draw the border of a mask inside a box; pixel centres are half a pixel in."""
    if not mask.any() or mask.all():
        return
    left, right, bottom, top = box
    across = left + (right - left) * (np.arange(mask.shape[1]) + 0.5) / mask.shape[1]
    down = top + (bottom - top) * (np.arange(mask.shape[0]) + 0.5) / mask.shape[0]
    axis.contour(across, down, mask, levels=[0.5], colors=[colour], linewidths=width)
