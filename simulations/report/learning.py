"""Learning: how the primary metric and the loss moved over the rounds, one panel per site."""

from collections import defaultdict
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simulations.report import words
from simulations.report.style import WIDTH, Grid, in_last_row, look, missing, panels, span, styled
from simulations.results import FEDERATED, Results

TITLE = "Learning curves"
TABLE = "history"
SPLITS = ("val", "test", "train")
"""The split that shows best what was learnt stands first."""
POOLED_SOURCES = "all sources (pooled)"
MOST_SITES = 12


def _chosen(results: Results) -> tuple[str, str, list[dict[str, Any]]]:
    """Choose what to draw: the primary metric of the best split, else the loss."""
    rows = [row | {"method": _method(row)} for row in results.rows("history")]
    rows = [row for row in rows if row["method"] in results.methods]
    for metric in (results.primary, "loss"):
        for split in SPLITS:
            some = [row for row in rows if row["metric"] == metric and row["split"] == split]
            if some:
                return metric, split, some
    return results.primary, SPLITS[0], []


def _method(row: dict[str, Any]) -> str:
    """Name the method of a training: the one on a site alone is, at this site, what local only means."""
    return "local only" if row["method"] == f"local/{row['site']}" else str(row["method"])


def _panels(results: Results, rows: list[dict[str, Any]]) -> list[str]:
    """All sources first, then the sites; a pooled training's one made-up site is left to the table."""
    present = {row["site"] for row in rows}
    return [site for site in (POOLED_SOURCES, *results.sites()) if site in present] or sorted(present)


def describe(results: Results) -> str:
    """Caption: what is drawn, n and what is not."""
    metric, split, rows = _chosen(results)
    if not rows:
        return "No learning curve was kept."
    seeds = len({row["seed"] for row in rows})
    rounds = max(row["round"] for row in rows)
    sites = len(_panels(results, rows))
    more = f" {sites - MOST_SITES} more sites in the table." if sites > MOST_SITES else ""
    lines = f"thick: mean of {words.count(seeds, 'seed')}, thin: each seed" if seeds > 1 else "one seed"
    said = {"val": "validation", "train": "training"}.get(split, split)
    return (
        f"{words.direction(metric)} on {said} images after each of {words.count(rounds, 'round')}; "
        f"{lines}{_counted(results, split)}. Curves carry no interval: they show the course of training, not the "
        f"result.{more}"
    )


def _counted(results: Results, split: str) -> str:
    ns = [site[split]["images"] for site in results.record["data"]["sites"]]
    return f"; n = {min(ns):,} to {max(ns):,} images per site" if ns else ""


@styled
def draw(results: Results) -> Figure:
    """Draw one panel per site, one line per method."""
    metric, split, rows = _chosen(results)
    if not rows:
        return missing("No learning curves: the history table is empty. Evaluate during training to fill it.")
    order = _panels(results, rows)[:MOST_SITES]
    grid = Grid(columns=3, height=1.5, left=0.6, top=0.7, across=0.25, down=0.52)
    figure, axes = panels(len(order), grid)
    lines = {}
    for index, (axis, site) in enumerate(zip(axes, order, strict=True)):
        mine = [row for row in rows if row["site"] == site]
        for method in [name for name in results.methods if any(row["method"] == name for row in mine)]:
            lines[method] = _line(axis, site, method, [row for row in mine if row["method"] == method])
        axis.set_title(
            words.shorten(site, 30) + (" (held out)" if site in results.sites("held-out") else ""), fontsize=8.5
        )
        axis.set_ylim(*span([row["value"] for row in rows if row["site"] in order], least=0.04))
        axis.set_xlim(min(row["round"] for row in rows) - 0.3, max(row["round"] for row in rows) + 0.3)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.grid(axis="y")
        axis.tick_params(labelleft=index % 3 == 0)
        if index % 3 == 0:
            axis.set_ylabel(f"{words.title(metric)}, {split}")
        if in_last_row(index, len(order), 3):
            axis.set_xlabel("round")
    figure.legend(lines.values(), lines.keys(), loc="upper left", ncols=len(lines),
                  bbox_to_anchor=(grid.left / WIDTH - 0.01, 1.0))  # fmt: skip
    return figure


def _line(axis: Axes, site: str, method: str, rows: list[dict[str, Any]]) -> Any:
    """Draw each seed thinly and their mean thickly; give the mean's line."""
    colour, marker = look(method)
    seeds = sorted({row["seed"] for row in rows})
    values: dict[int, list[float]] = defaultdict(list)
    for seed in seeds:
        course = sorted((row["round"], row["value"]) for row in rows if row["seed"] == seed)
        for round_, value in course:
            values[round_].append(value)
        if len(seeds) > 1:
            axis.plot(*zip(*course, strict=True), color=colour, linewidth=0.6, alpha=0.45)
    rounds = sorted(values)
    (line,) = axis.plot(
        rounds, [fmean(values[round_]) for round_ in rounds], color=colour, marker=marker, markersize=3.4,
        linewidth=2.2 if method == FEDERATED else 1.3, markevery=max(1, len(rounds) // 6), label=f"{site}|{method}",
        zorder=3 if method == FEDERATED else 2,
    )  # fmt: skip
    return line
