"""How every figure looks: one colour-blind-safe palette, one type, one grid. Nothing global stays changed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER, TINT = "#1f2a36", "#5f6b78", "#d5dce3", "#fefefe", "#eaf2f9"
"""Tones of lines and words; the page swaps exactly these for its own in the dark (`report/svg.py`)."""

ORANGE, SKY, GREEN, BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"
VERMILION, PURPLE, GREY = "#D55E00", "#CC79A7", "#8a8f94"
"""Okabe and Ito 2008, "Color Universal Design"; grey for what has no colour of its own."""

SCALE = "cividis"
"""Colour scale of heat maps (Nunez et al. 2018): even in lightness, the same for colour-blind readers."""

WIDTH = 9.0
"""Width of a full figure, inches: the page's column on a laptop, so that words keep their size."""

METHOD_LOOK: dict[str, tuple[str, str]] = {
    "federated": (BLUE, "D"),
    "local only": (ORANGE, "o"),
    "pooled": (GREEN, "s"),
    "best single site": (VERMILION, "^"),
    "ensemble of locals": (PURPLE, "v"),
    "leave one site out": (SKY, "p"),
}
"""Method to colour and marker: never by colour alone."""

RC: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8,
    "xtick.major.size": 2.5,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8,
    "ytick.major.size": 0,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "image.composite_image": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "consilium",
}
"""Site names are text, never formulas: `parse_math` is off."""

Found = TypeVar("Found")


def styled(draw: Callable[[Found], Figure]) -> Callable[[Found], Figure]:
    """Draw with our settings and put matplotlib's back afterwards."""

    @wraps(draw)
    def drawn(found: Found) -> Figure:
        with matplotlib.rc_context(RC):
            return draw(found)

    return drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Small multiples; every length in inches, so that nothing has to be measured."""

    columns: int
    height: float
    left: float = 0.6
    right: float = 0.15
    top: float = 0.35
    bottom: float = 0.55
    across: float = 0.35
    down: float = 0.55


def panels(count: int, grid: Grid, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """Make a figure with `count` panels, row by row."""
    columns = min(grid.columns, count)
    rows = -(-count // columns)
    panel = (width - grid.left - grid.right - (grid.columns - 1) * grid.across) / grid.columns
    total = grid.left + grid.right + columns * panel + (columns - 1) * grid.across
    height = grid.top + grid.bottom + rows * grid.height + (rows - 1) * grid.down
    figure = Figure(figsize=(total, height))
    axes = []
    for index in range(count):
        row, column = divmod(index, columns)
        x = grid.left + column * (panel + grid.across)
        y = height - grid.top - (row + 1) * grid.height - row * grid.down
        axes.append(figure.add_axes((x / total, y / height, panel / total, grid.height / height)))
    return figure, axes


def in_last_row(index: int, count: int, columns: int) -> bool:
    """Say whether a panel stands in the last row, where alone the x-axes are named: between rows it would collide."""
    return index // columns == (count - 1) // columns


def missing(what: str) -> Figure:
    """Say in a figure what is missing, and why nothing is drawn."""
    figure = Figure(figsize=(WIDTH, 1.1))
    figure.text(0.5, 0.5, what, ha="center", va="center", color=MUTED, fontsize=9.5, wrap=True)
    return figure


def look(method: str) -> tuple[str, str]:
    """Give colour and marker of a method."""
    return METHOD_LOOK.get(method, (GREY, "X"))


def mark(axis: Axes, y: float, look: tuple[str, str], row: Mapping[str, Any], label: str, thick: bool = False) -> None:
    """Draw a value with its interval; hollow where the method never saw the site."""
    colour, marker = look
    face = PAPER if row.get("role") == "held-out" else colour
    axis.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.4 if thick else 1.4)
    axis.plot(
        [row["value"]], [y], marker=marker, markersize=5.6, color=colour, markerfacecolor=face, markeredgewidth=1.3,
        linestyle="none", label=label,
    )  # fmt: skip


def slanted(names: list[str], length: int) -> float:
    """Give the height in inches of names, cut at a length, that stand slanted above a heat map."""
    return 0.04 * min(max(len(name) for name in names), length)


def contrasting(colour: Any) -> str:
    """Choose black or white words on an RGBA colour, by relative luminance (WCAG 2.2; at 0.179 both contrast alike)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#000000" if luminance > 0.179 else "#ffffff"


def span(values: list[float], padding: float = 0.06, least: float = 0.0) -> tuple[float, float]:
    """Give limits around the finite values, a little wider than they are and at least so wide.

    Where no value is negative, zero stays at the edge: no metric has a tick below it.
    """
    finite = [value for value in values if value == value]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    margin = max((high - low or abs(high) or 1.0) * padding, (least - high + low) / 2)
    below, above = low - margin, high + margin
    return (max(below, -0.04 * above) if low >= 0 else below), above
