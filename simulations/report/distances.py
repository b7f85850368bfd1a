"""One number per site under privacy: how far its attention lies from the others', with the noise it was given."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.style import BLUE, MUTED, RULE, VERMILION, WIDTH, missing, styled
from simulations.results import Results

TITLE = "How far each site lies from the others, under privacy"
TABLE = "distances"
ONLY_WITH_ROWS = True
"""A run without such rows has no such section: most runs release none."""
COVERING = 2.118
"""Standard deviations that hold 95 % of Laplace noise: ln 20 / √2."""


def describe(results: Results) -> str:
    """Caption: what is drawn, n, and what the bars leave out."""
    rows = results.rows("distances")
    if not rows:
        return "No site told how far it lies from the others."
    sites, seeds = {row["site"] for row in rows}, {row["seed"] for row in rows}
    return (
        f"Distance of the mean attention signature of each of {words.count(len(sites), 'site')} from the others', "
        f"in standard deviations between patients, {words.count(len(seeds), 'seed')}, a mark each. Bars: 95 % of the "
        f"noise that protects the patients. The tick is where a site like all others would seem to lie, because the "
        f"prior that it is held against is noisy too: a bar that reaches it tells no shift from none. The chance of "
        f"which patients came is in neither."
    )


@styled
def draw(results: Results) -> Figure:
    """Draw one row per site, a mark with its noise per seed."""
    rows = results.rows("distances")
    if not rows:
        return missing(
            "No distances under privacy: this run releases none. Under privacy, with attention.every, set "
            "privacy.distance-noise-multiplier."
        )
    order = results.in_order({row["site"] for row in rows})
    figure = Figure(figsize=(WIDTH * 0.62, 0.42 * len(order) + 0.9), layout="constrained")
    axis = figure.subplots()
    for y, site in enumerate(order):
        _marks(axis, y, [row for row in rows if row["site"] == site])
    axis.axvline(0, color=RULE, linewidth=1)
    axis.set_yticks(range(len(order)), [words.shorten(site) for site in order])
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.set_xlabel("distance, in standard deviations between patients")
    return figure


def _marks(axis: Any, y: int, rows: list[dict[str, Any]]) -> None:
    places = y + np.linspace(-0.2, 0.2, len(rows)) if len(rows) > 1 else [y]
    for place, row in zip(places, rows, strict=True):
        axis.plot(
            [row["distance"] - COVERING * row["noise"], row["distance"] + COVERING * row["noise"]],
            [place, place],
            color=MUTED,
            linewidth=1.2,
        )
        axis.plot([row["floor"]], [place], "|", color=VERMILION, markersize=9, markeredgewidth=1.6)
        axis.plot([row["distance"]], [place], "o", color=BLUE, markersize=4.5)
