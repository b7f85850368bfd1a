"""Health of the attention: at each site the worst of each family of statistics, and what raised an alarm."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.style import INK, MUTED, RULE, TINT, VERMILION, WIDTH, contrasting, missing, styled
from simulations.results import Results

TITLE = "Is the attention healthy?"
TABLE = "health"
FAMILIES = {
    "saturation": "gates shut\nor open",
    "collapse": "rows or branch\ncollapsed",
    "sink": "one token\nswallows",
    "border": "mass at\nthe border",
    "shortcut": "corner goes\nwith the class",
}


def describe(results: Results) -> str:
    """Caption: what is drawn, and how many measurements stand behind it."""
    rows = results.rows("health")
    if not rows:
        return "The health of the attention was not measured."
    rounds, seeds = {row["round"] for row in rows}, {row["seed"] for row in rows}
    alarms = {(row["site"], row["family"]) for row in rows if row["alarm"]}
    return (
        f"The worst statistic of each family at each site under the federated model, last of "
        f"{words.count(len(rounds), 'measuring round')}, mean over {words.count(len(seeds), 'seed')}; all lie in 0 to "
        f"1. Filled: past its bound in some round of some seed ({words.count(len(alarms), 'alarm')}), with the rounds. "
        f"Mass at the border: a map that looks everywhere alike has 0.44. The last column is how much more attention "
        f"one corner holds in one class than in the others, which a burnt-in mark does. A reason to look, no verdict; "
        f"bounds stand in docs/reference/health.md. Point values without intervals."
    )


@styled
def draw(results: Results) -> Figure:
    """Draw one row per site and one column per family."""
    rows = results.rows("health")
    if not rows:
        return missing(
            "No health of the attention: it was not measured. Set attention.every, and take a model with attention."
        )
    order = results.in_order({row["site"] for row in rows})
    families = [family for family in FAMILIES if any(row["family"] == family for row in rows)]
    height = 0.34 * len(order) + 0.55
    figure = Figure(figsize=(WIDTH, height))
    axis = figure.add_axes((0.235, 0.05 / height, 0.745, 0.34 * len(order) / height))
    for y, site in enumerate(order):
        for x, family in enumerate(families):
            own = [row for row in rows if row["site"] == site and row["family"] == family]
            _cell(axis, x, y, own)
    axis.set_xlim(-0.5, len(families) - 0.5)
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.set_yticks(range(len(order)), [words.shorten(site, 26) for site in order])
    axis.set_xticks(range(len(families)), [FAMILIES[family] for family in families], fontsize=7.5)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.grid(False)
    for side in axis.spines.values():
        side.set_visible(False)
    return figure


def _cell(axis: Axes, x: int, y: int, rows: list[dict[str, Any]]) -> None:
    if not rows:
        axis.text(x, y, words.DASH, ha="center", va="center", color=MUTED, fontsize=8)
        return
    last = max(row["round"] for row in rows)
    values = [row["value"] for row in rows if row["round"] == last]
    raised = sorted({row["round"] for row in rows if row["alarm"]})
    axis.barh(y, 0.96, height=0.86, left=x - 0.48, color=VERMILION if raised else TINT, edgecolor=RULE, linewidth=0.6)
    text = words.number(sum(values) / len(values), 2)
    if raised:
        text += f"  round {', '.join(map(str, raised[:4]))}{' …' if len(raised) > 4 else ''}"
    axis.text(x, y, text, ha="center", va="center", fontsize=8, color=contrasting(to_rgb(VERMILION)) if raised else INK,
              fontweight="bold" if raised else "normal")  # fmt: skip
