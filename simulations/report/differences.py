"""Differences: the federated model minus each baseline, on the same resampled patients, so losses show as losses."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.headline import NARROWEST, comparable, drawn_places, held_out
from simulations.report.style import INK, MUTED, TINT, Grid, look, mark, missing, panels, span, styled
from simulations.results import SUMMARIES, Results

TITLE = "Federated minus each baseline"
TABLE = "differences"


def _rows(results: Results) -> list[dict[str, Any]]:
    return comparable(results.rows("differences", metric=results.primary))


def describe(results: Results) -> str:
    """Caption: what is drawn, n and interval."""
    rows = _rows(results)
    if not rows:
        return "No difference has been computed."
    ns = [row["n"] for row in rows if row["site"] not in SUMMARIES] or [0]
    better = "right" if words.higher_is_better(results.primary) else "left"
    shaded = " Shaded: sites that took no part in any training." if results.sites("held-out") else ""
    return (
        f"Difference in {words.title(results.primary)}, federated minus the baseline named above the panel; lines: "
        f"paired 95 % interval, the same patients resampled for both. Right of zero is more, and {better} is better "
        f"for the federated model. An interval that crosses zero does not tell the two apart. n = {min(ns):,} to "
        f"{max(ns):,} images per site.{shaded}"
    )


@styled
def draw(results: Results) -> Figure:
    """Draw one panel per baseline, one row per site."""
    rows = _rows(results)
    if not rows:
        return missing(f"No differences: the table has no row for {results.primary}. Judge baselines to fill it.")
    order = [site for site in drawn_places(results) if any(row["site"] == site for row in rows)]
    baselines = [name for name in results.methods if any(row["baseline"] == name for row in rows)]
    grid = Grid(columns=2, height=0.2 * len(order) + 0.12, left=1.62, right=1.42, across=1.5, top=0.35, down=0.72)
    figure, axes = panels(len(baselines), grid)
    ends = [row[end] for row in rows if row["site"] in order for end in ("low", "difference", "high")]
    low, high = span([0.0, *ends], least=NARROWEST)
    for index, (axis, baseline) in enumerate(zip(axes, baselines, strict=True)):
        mine = {row["site"]: row for row in rows if row["baseline"] == baseline}
        _panel(axis, baseline, [(site, mine.get(site)) for site in order])
        axis.set_xlim(low, high)
        axis.set_yticks(range(len(order)), [words.shorten(site, 24) if index % 2 == 0 else "" for site in order])
        axis.set_xlabel(_sides(results.primary), fontsize=7.5)
        for y, site in enumerate(order):
            if held_out(results, site):
                axis.axhspan(y - 0.5, y + 0.5, color=TINT, zorder=0)
    return figure


def _sides(metric: str) -> str:
    sides = ("baseline better", "federated better")
    left, right = sides if words.higher_is_better(metric) else sides[::-1]
    return f"← {left} · {right} →"


def _panel(axis: Axes, baseline: str, rows: list[tuple[str, dict[str, Any] | None]]) -> None:
    axis.set_title(f"minus {baseline}")
    axis.grid(axis="x")
    axis.spines["left"].set_visible(False)
    axis.axvline(0, color=INK, linewidth=0.9)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=7.5)
    axis.locator_params(axis="x", nbins=6)
    for y, (site, row) in enumerate(rows):
        decimals = words.digits(row["metric"]) if row else 3
        shown = words.interval(row, decimals, "difference") if row else "does not apply"
        beside = axis.get_yaxis_transform()
        axis.text(1.04, y, shown, transform=beside, va="center", fontsize=7.2, color=INK if row else MUTED)
        if row:
            mark(axis, y, look(baseline), {**row, "value": row["difference"]}, f"{site}|{baseline}")
