"""Forest plot of a benchmark: every method and baseline minus the reference, one panel per judged site, mean and worst.

Losses show as losses: the line stands at zero, and an interval that crosses it tells no difference.
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.style import BLUE, GREY, INK, MUTED, TINT, VERMILION, Grid, missing, panels, span, styled

COLUMNS = 4
LEAST = 0.02
"""No narrower axis: on one of nothing but noise every difference would look large."""


@styled
def draw_forest(found: Any) -> Figure:
    """Draw a `Generalised`."""
    record, metric = found.record, found.record["metrics"][0]
    groups = _groups(found, metric)
    names = [row["method"] for row in found.tables["summary"] if row["metric"] == metric]
    names = [name for name in names if name != record["reference"]]
    if not names:
        return missing(f"Nothing to compare: {record['reference']} is the only row. Add a method.")
    grid = Grid(columns=COLUMNS, height=0.19 * len(names) + 0.1, left=1.35, across=0.18, top=0.62, down=0.75)
    figure, axes = panels(len(groups), grid)
    kinds = {row["method"]: row["kind"] for row in found.tables["summary"]}
    better = words.higher_is_better(metric)
    for index, (axis, (heading, rows)) in enumerate(zip(axes, groups, strict=True)):
        _panel(axis, heading, [(name, kinds[name], rows.get(name)) for name in names], better)
        axis.set_yticks(range(len(names)), names if index % COLUMNS == 0 else [""] * len(names))
    more = "right" if better else "left"
    figure.text(
        0.01,
        1 - 0.16 / figure.get_figheight(),
        f"{words.title(metric)}: method minus {record['reference']}, paired 95 % intervals; {more} is better",
        fontsize=9,
        color=INK,
    )
    return figure


def _groups(found: Any, metric: str) -> list[tuple[str, dict[str, dict[str, float]]]]:
    """Give (heading, method → difference, low, high): over the sites first, then each site."""
    summary = [row for row in found.tables["summary"] if row["metric"] == metric]
    groups = []
    for name, heading in (("mean", "mean of the sites"), ("worst", "worst site")):
        ends = {"difference": f"d_{name}", "low": f"d_{name}_low", "high": f"d_{name}_high"}
        groups.append((heading, {row["method"]: {key: row[column] for key, column in ends.items()} for row in summary}))
    rows = [row for row in found.tables["differences"] if row["metric"] == metric]
    by_site = len({row["fold"] for row in rows}) in (1, len({row["site"] for row in rows}))
    for fold, site in dict.fromkeys((row["fold"], row["site"]) for row in rows):
        mine = {row["method"]: row for row in rows if (row["fold"], row["site"]) == (fold, site)}
        n = next(iter(mine.values()))["n"]
        name = site if by_site else f"{fold} → {site}"
        groups.append((f"{words.shorten(name, 22)} (n = {n:,})", mine))
    return groups


def _panel(axis: Axes, heading: str, rows: list[tuple[str, str, dict[str, float] | None]], better: bool) -> None:
    axis.set_title(heading, fontsize=8)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x")
    axis.axvline(0, color=MUTED, linewidth=0.9)
    known = [row for _, _, row in rows if row is not None]
    axis.set_xlim(*span([0.0, *(row[end] for row in known for end in ("low", "difference", "high"))], least=LEAST))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.locator_params(axis="x", nbins=4)
    for y, (_, kind, row) in enumerate(rows):
        if kind == "baseline":
            axis.axhspan(y - 0.5, y + 0.5, color=TINT, zorder=0)
        if row is None or row["difference"] != row["difference"]:
            axis.text(0, y, "undefined", fontsize=7, color=MUTED, va="center", ha="center")
            continue
        good = row["low"] > 0 if better else row["high"] < 0
        bad = row["high"] < 0 if better else row["low"] > 0
        colour = BLUE if good else VERMILION if bad else GREY
        axis.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.4)
        axis.plot([row["difference"]], [y], marker="D" if good else "v" if bad else "o", markersize=4.2, color=colour)
