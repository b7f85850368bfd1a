"""Headline: every method at every site with its interval, a forest plot in panels; held-out sites first."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.style import INK, MUTED, TINT, Grid, in_last_row, look, mark, missing, panels, span, styled
from simulations.results import ALL_SOURCES, FEDERATED, HELD_OUT_MEAN, SUMMARIES, WORST_SOURCE, Results

TITLE = "Every method at every site"
TABLE = "headline"
LEAVE_ONE_SITE_OUT = "leave one site out"
MOST_SOURCES, NARROWEST = 12, 0.04
"""More source sites stand in the table only; a narrower axis would blow up what is nothing."""


def places(results: Results) -> list[str]:
    """Order the rows' sites: held-out, summaries, sources. One held-out site is its own mean."""
    present = set(results.tables["headline"]["site"].to_pylist())
    targets = [site for site in results.sites("held-out") if site in present]
    mean = [HELD_OUT_MEAN] if len(targets) != 1 else []
    known = [*targets, *mean, ALL_SOURCES, WORST_SOURCE, *results.sites("source")]
    return [site for site in known if site in present] + sorted(present - {*known, *SUMMARIES})


def held_out(results: Results, place: str) -> bool:
    """Say whether a place stands for sites that no training saw."""
    return place == HELD_OUT_MEAN or place in results.sites("held-out")


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep what was judged on the same images as the others.

    Leave one site out has its held-out mean over source sites, each left out in turn: other images than the rest's.
    """
    elsewhere = (HELD_OUT_MEAN, LEAVE_ONE_SITE_OUT)
    return [row for row in rows if (row["site"], row.get("baseline", row["method"])) != elsewhere]


def best_value(rows: list[dict[str, Any]], metric: str) -> float:
    """Give the best defined value of one place; NaN when there is nothing to be better than, as written."""
    values = [row["value"] for row in comparable(rows) if words.number(row["value"]) != words.DASH]
    if len({words.number(value, words.digits(metric)) for value in values}) < 2:
        return float("nan")
    return float(max(values) if words.higher_is_better(metric) else min(values))


def drawn_places(results: Results) -> list[str]:
    """Leave out source sites beyond the first dozen; they stand in the table."""
    sources = results.sites("source")[MOST_SOURCES:]
    return [site for site in places(results) if site not in sources]


def describe(results: Results) -> str:
    """Caption: what is drawn, n and interval."""
    rows = results.rows("headline", metric=results.primary)
    if not rows:
        return "No site has been judged."
    ns = [row["n"] for row in rows if row["site"] not in SUMMARIES] or [0]
    seeds = max(row["seeds"] for row in rows)
    left_out = len(places(results)) - len(drawn_places(results))
    more = f" {words.count(left_out, 'more source site')} in the table." if left_out else ""
    return (
        f"{words.direction(results.primary)} on test images. Markers: the value"
        f"{f', mean of {seeds} seeds' if seeds > 1 else ''}; lines: 95 % interval, {words.resampled(seeds)}. "
        f"n = {min(ns):,} to {max(ns):,} images per site. {_roles(results, rows)}The dotted line is the "
        f"federated model.{more}"
    )


def _roles(results: Results, rows: list[dict[str, Any]]) -> str:
    unseen = "Filled: the method trained on this site; hollow: it never saw it. "
    shaded = "Shaded: sites that took no part in any training. "
    hollow = any(row["role"] == "held-out" for row in rows)
    return (unseen if hollow else "") + (shaded if results.sites("held-out") else "")


@styled
def draw(results: Results) -> Figure:
    """Draw one panel per site, one row per method."""
    rows = results.rows("headline", metric=results.primary)
    if not rows:
        return missing(f"No headline: the table has no row for {results.primary}. Judge the run to fill it.")
    methods = [method for method in results.methods if any(row["method"] == method for row in rows)]
    order = drawn_places(results)
    grid = Grid(columns=3, height=0.2 * len(methods) + 0.12, left=1.27, right=1.2, across=1.22, top=0.35, down=0.58)
    figure, axes = panels(len(order), grid)
    ends = [row[end] for row in rows if row["site"] in order for end in ("low", "value", "high")]
    limits = span(ends, least=NARROWEST)
    for index, (axis, site) in enumerate(zip(axes, order, strict=True)):
        _panel(axis, site, methods, {row["method"]: row for row in rows if row["site"] == site})
        axis.set_xlim(*limits)
        axis.set_yticks(range(len(methods)), methods if index % 3 == 0 else [""] * len(methods))
        if held_out(results, site):
            axis.set_facecolor(TINT)
            axis.set_title("held out", loc="right", fontsize=7.5, fontweight="normal", fontstyle="italic")
        for label, method in zip(axis.get_yticklabels(), methods, strict=True):
            label.set_fontweight("bold" if method == FEDERATED else "normal")
        if in_last_row(index, len(order), 3):
            axis.set_xlabel(words.title(results.primary))
    return figure


def _panel(axis: Axes, site: str, methods: list[str], rows: dict[str, Any]) -> None:
    axis.set_title(words.shorten(site, 34))
    axis.grid(axis="x")
    axis.spines["left"].set_visible(False)
    axis.set_ylim(len(methods) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=7.5)
    axis.locator_params(axis="x", nbins=4)
    if FEDERATED in rows and words.number(rows[FEDERATED]["value"]) != words.DASH:
        axis.axvline(rows[FEDERATED]["value"], color=look(FEDERATED)[0], linewidth=0.8, linestyle=":")
    for y, method in enumerate(methods):
        row = rows.get(method)
        weight = "bold" if method == FEDERATED else "normal"
        shown = words.interval(row, words.digits(row["metric"])) if row else "does not apply"
        colour = INK if row else MUTED
        beside = axis.get_yaxis_transform()
        axis.text(1.04, y, shown, transform=beside, va="center", fontsize=7, fontweight=weight, color=colour)
        if row:
            mark(axis, y, look(method), row, f"{site}|{method}", method == FEDERATED)
