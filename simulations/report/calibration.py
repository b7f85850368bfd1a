"""Calibration: does 70 % mean 70 %? Reliability curves, one panel per site."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.style import MUTED, WIDTH, Grid, look, missing, panels, styled
from simulations.results import FEDERATED, SUMMARIES, Results

TITLE = "Does 70 % mean 70 %?"
TABLE = "calibration"
MOST_SITES = 12


def describe(results: Results) -> str:
    """Caption: what is drawn and n."""
    rows = [row for row in results.rows("calibration") if row["count"] > 0]
    if not rows:
        return "Calibration was not measured."
    totals = [sum(row["count"] for row in rows if (row["site"], row["method"]) == key)
              for key in {(row["site"], row["method"]) for row in rows}]  # fmt: skip
    return (
        f"Share of cases that were so against what the model said, in bins of confidence. On the diagonal the model "
        f"means what it says; below it, it says too much. Larger marks hold more predictions; n = {min(totals):,} to "
        f"{max(totals):,} predictions per curve. Bins carry no interval; the ECE in the tables does."
    )


@styled
def draw(results: Results) -> Figure:
    """Draw one reliability panel per site, held-out sites first."""
    rows = [row for row in results.rows("calibration") if row["count"] > 0]
    if not rows:
        return missing("No calibration curves: the calibration table is empty. Judge the run to fill it.")
    present = {row["site"] for row in rows}
    known = [*results.sites("held-out"), *SUMMARIES, *results.sites("source")]
    order = [site for site in known if site in present] + sorted(present - set(known))
    grid = Grid(columns=4, height=1.95, left=0.6, top=0.7, across=0.3, down=0.6)
    figure, axes = panels(len(order[:MOST_SITES]), grid)
    lines: dict[str, Any] = {}
    for index, (axis, site) in enumerate(zip(axes, order[:MOST_SITES], strict=True)):
        mine = [row for row in rows if row["site"] == site]
        for method in [name for name in results.methods if any(row["method"] == name for row in mine)]:
            lines[method] = _curve(axis, site, method, [row for row in mine if row["method"] == method])
        held = " (held out)" if site in results.sites("held-out") else ""
        axis.set_title(words.shorten(site, 28 - len(held)) + held, fontsize=8.5)
        _frame(axis, index % 4 == 0, index >= len(order) - 4)
    figure.legend(lines.values(), lines.keys(), loc="upper left", ncols=len(lines),
                  bbox_to_anchor=(grid.left / WIDTH - 0.01, 1.0))  # fmt: skip
    return figure


def _curve(axis: Axes, site: str, method: str, rows: list[dict[str, Any]]) -> Any:
    rows = sorted(rows, key=lambda row: row["bin"])
    colour, marker = look(method)
    ours = method == FEDERATED
    said, seen = [row["confidence"] for row in rows], [row["observed"] for row in rows]
    (line,) = axis.plot(said, seen, color=colour, linewidth=2.0 if ours else 1.1, marker=marker, markersize=3.2,
                        zorder=3 if ours else 2, alpha=1 if ours else 0.75, label=f"{site}|{method}")  # fmt: skip
    most = max(row["count"] for row in rows)
    if ours:
        areas = [70 * row["count"] / most for row in rows]
        axis.scatter(said, seen, s=areas, color=colour, alpha=0.35, linewidths=0, zorder=2)
    return line


def _frame(axis: Axes, first: bool, last: bool) -> None:
    axis.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    axis.set_xlim(-0.03, 1.03)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xticks([0, 0.5, 1])
    axis.set_yticks([0, 0.5, 1])
    axis.tick_params(labelleft=first)
    axis.grid()
    if first:
        axis.set_ylabel("observed share")
    if last:
        axis.set_xlabel("predicted probability")
