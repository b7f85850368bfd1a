"""Calibration: does 70 % mean 70 %? Reliability curves, one panel per site."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.bins import ENOUGH, FEWEST, PARTS, Bin, merged, wilson
from simulations.report.style import MUTED, WIDTH, Grid, in_last_row, look, missing, panels, styled
from simulations.results import FEDERATED, SUMMARIES, Results

TITLE = "Does 70 % mean 70 %?"
TABLE = "calibration"
MOST_SITES, COLUMNS = 12, 4

BASELINES, MOST_BASELINES = ("pooled", "local only"), 2
"""Drawn thinly beside the federated model; the table has all."""

SHARES = {
    "binary": "Share of images that were positive, against the probability that the model gave.",
    "multiclass": "Share of images whose most probable class was right, against the probability that it was given.",
    "multilabel": "Share of findings that were there, all labels together, against the probability that it gave.",
    "segmentation": "Share of pixels whose most probable class was right, against the probability that it was given.",
}
"""Task to what a curve says."""


def describe(results: Results) -> str:
    """Caption: what is drawn, n, the bins' rule and what their intervals leave out."""
    rows = [row for row in results.rows("calibration", method=FEDERATED) if row["count"] > 0]
    if not rows:
        return "The federated model's calibration was not measured."
    order = _order(rows, results)
    ns = [sum(row["count"] for row in rows if row["site"] == site) for site in order]
    unit = "pixels" if _dense(results) else "predictions"
    more = f" {words.count(len(ns) - MOST_SITES, 'more site')} in the table." if len(ns) > MOST_SITES else ""
    first = " Curves are the first seed's, the ECE is the mean of all." if len(results.record["seeds"]) > 1 else ""
    home = " (only at home)" if "local only" in _baselines(results) and results.sites("held-out") else ""
    return (
        f"{SHARES.get(results.record['task'], SHARES['binary'])} On the diagonal the model means what it says; below "
        f"it, it says too much, above it too little. Neighbouring bins of the table are merged, weighted by count, "
        f"to {PARTS} of about equal count, {FEWEST} {unit} at least, {ENOUGH} suffice; a mark's area follows the "
        f"count; n = {min(ns):,} to {max(ns):,} {unit} per site. {_bars(results)} Above a panel: the federated model's "
        f"ECE. Thin: {words.listed(_baselines(results)) or 'no baseline'}{home}; other methods stand in the "
        f"table.{first}{more}"
    )


@styled
def draw(results: Results) -> Figure:
    """Draw one reliability panel per site, held-out sites first."""
    rows = [row for row in results.rows("calibration") if row["count"] > 0]
    if not rows:
        return missing("No calibration curves: the calibration table is empty. Judge the run to fill it.")
    order = _order(rows, results)[:MOST_SITES]
    grid = Grid(columns=COLUMNS, height=1.95, left=0.6, top=0.82, across=0.3, down=0.78)
    figure, axes = panels(len(order), grid)
    dense, lines = _dense(results), {}
    for index, (axis, site) in enumerate(zip(axes, order, strict=True)):
        for method in (FEDERATED, *_baselines(results)):
            bins = merged([row for row in rows if (row["site"], row["method"]) == (site, method)])
            # Away from home the table has one of the sites' own models only, which is no curve of the method.
            if bins and (method != "local only" or site not in results.sites("held-out")):
                lines[method] = _curve(axis, site, method, bins)
                if method == FEDERATED and not dense:
                    _intervals(axis, bins)
        held = " (held out)" if site in results.sites("held-out") else ""
        axis.set_title(f"{words.shorten(site, 28 - len(held))}{held}{_ece(results, site)}", fontsize=8.5)
        _frame(axis, index % COLUMNS == 0, in_last_row(index, len(order), COLUMNS), dense)
    figure.legend(lines.values(), lines.keys(), loc="upper left", ncols=max(len(lines), 1),
                  bbox_to_anchor=(grid.left / WIDTH - 0.01, 1.0))  # fmt: skip
    return figure


def _order(rows: list[dict[str, Any]], results: Results) -> list[str]:
    present = {row["site"] for row in rows}
    known = [*results.sites("held-out"), *SUMMARIES, *results.sites("source")]
    return [site for site in known if site in present] + sorted(present - set(known))


def _baselines(results: Results) -> list[str]:
    """Take the two that say most: what sharing images would give, and what a site has alone; else the first ones."""
    there = {row["method"] for row in results.rows("calibration")} - {FEDERATED}
    wanted = [*BASELINES, *results.methods]
    return [name for name in dict.fromkeys(wanted) if name in there][:MOST_BASELINES]


def _dense(results: Results) -> bool:
    return str(results.record["task"]) == "segmentation"


def _bars(results: Results) -> str:
    if _dense(results):
        return "Bins carry no interval, since pixels of one image are not independent; the ECE's resamples patients."
    return (
        "Lines: 95 % interval of the federated model's shares (Wilson), which takes images as independent and is too "
        "narrow where a patient has several; the ECE's resamples patients."
    )


def _ece(results: Results, site: str) -> str:
    rows = results.rows("headline", method=FEDERATED, site=site, metric="ece")
    return f"\nECE {words.interval(rows[0], 2)}" if rows else ""


def _curve(axis: Axes, site: str, method: str, bins: list[Bin]) -> Any:
    colour, marker = look(method)
    ours = method == FEDERATED
    said, seen = [one.confidence for one in bins], [one.observed for one in bins]
    (line,) = axis.plot(said, seen, color=colour, linewidth=1.8 if ours else 0.9, marker=marker,
                        markersize=3.2 if ours else 2.6, zorder=4 if ours else 2, label=f"{site}|{method}")  # fmt: skip
    if ours:
        most = max(one.count for one in bins)
        areas = [150 * one.count / most for one in bins]
        axis.scatter(said, seen, s=areas, color=colour, alpha=0.28, linewidths=0, zorder=3)
    return line


def _intervals(axis: Axes, bins: list[Bin]) -> None:
    colour, _ = look(FEDERATED)
    for one in bins:
        axis.plot([one.confidence] * 2, wilson(one.observed, one.count), color=colour, linewidth=1.0, zorder=3)


def _frame(axis: Axes, first: bool, last: bool, dense: bool) -> None:
    axis.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    axis.set_xlim(-0.05, 1.05)
    axis.set_ylim(-0.05, 1.05)
    axis.set_xticks([0, 0.5, 1])
    axis.set_yticks([0, 0.5, 1])
    axis.tick_params(labelleft=first)
    axis.grid()
    if first:
        axis.set_ylabel("observed share" + (" of pixels" if dense else ""))
    if last:
        axis.set_xlabel("predicted probability")
