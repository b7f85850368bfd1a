"""Drop: how much each site's own model loses elsewhere, against what was to tell it."""

import math

from matplotlib.figure import Figure

from simulations.drop import PREDICTORS, Drop
from simulations.report.style import BLUE, MUTED, WIDTH, styled

COLUMNS = 3


@styled
def draw_drop(found: Drop) -> Figure:
    """Draw one panel per predictor, the best first; every dot is a model at a site that did not train it."""
    rows = math.ceil(len(found.relations) / COLUMNS)
    figure = Figure(figsize=(WIDTH, 2.1 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True)
    kept = [row for row in found.dyads if math.isfinite(row["drop"])]
    for number, axis in enumerate(panels.ravel()):
        if number >= len(found.relations):
            axis.set_visible(False)
            continue
        relation = found.relations[number]
        name = relation["predictor"]
        axis.axhline(0, color=MUTED, linewidth=0.7)
        axis.plot([row[name] for row in kept], [row["drop"] for row in kept], "o", color=BLUE, markersize=4)
        rho = relation["spearman"]
        axis.set_title(f"{PREDICTORS[name]}: ρ = {rho:.2f}" if math.isfinite(rho) else PREDICTORS[name])
        if number % COLUMNS == 0:
            axis.set_ylabel(f"drop of {found.metric}")
    return figure
