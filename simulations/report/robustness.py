"""Robustness curves: the metric, and how far attention stayed, over the severity of every corruption."""

import math

from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.style import BLUE, MUTED, VERMILION, WIDTH, styled
from simulations.robustness import Robustness

COLUMNS = 5


@styled
def draw_robustness(found: Robustness) -> Figure:
    """Draw one panel per corruption, the most harmful first; severity 0 is the clean image."""
    count = len(found.summary)
    rows = math.ceil(count / COLUMNS)
    figure = Figure(figsize=(WIDTH, 1.55 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, one in zip(panels, found.summary, strict=False):
        own = sorted((row["severity"], row) for row in found.rows if row["corruption"] == one["corruption"])
        severities = [0, *(severity for severity, _ in own)]
        axis.axhline(found.clean, color=MUTED, linewidth=0.7)
        axis.plot(severities, [found.clean, *(row["value"] for _, row in own)], color=BLUE, marker="o", markersize=3)
        axis.plot(severities, [1.0, *(row["as_js"] for _, row in own)], color=VERMILION, linestyle="--", linewidth=1)
        axis.set_title(one["corruption"].replace("_", " "), fontsize=8)
        axis.set_xticks(range(6))
    for axis in panels[count:]:
        axis.set_visible(False)
    for axis in panels[max(0, count - COLUMNS) : count]:
        axis.tick_params(labelbottom=True)  # also where the panel below is empty
    figure.suptitle(
        f"{words.title(found.metric)} (line) and attention that stayed, AS_JS (dashed), over severity; 0 is clean",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    return figure
