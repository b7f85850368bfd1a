"""Sites: who took part, with how many images and patients, and how common the finding is."""

from typing import Any

from matplotlib.figure import Figure

from simulations.report import words
from simulations.report.style import BLUE, GREEN, INK, MUTED, PAPER, RULE, SKY, TINT, WIDTH, missing, styled
from simulations.results import Results

TITLE = "Who took part"
TABLE = ""
PARTS = (("train", BLUE, ""), ("val", SKY, "///"), ("test", GREEN, ""))
"""Part of a site's images, colour and hatch."""


def describe(results: Results) -> str:
    """Caption: what is drawn and n."""
    sites = results.record["data"]["sites"]
    images = sum(site[part]["images"] for site in sites for part, _, _ in PARTS)
    patients = sum(site[part]["patients"] for site in sites for part, _, _ in PARTS)
    return (
        f"{words.count(len(sites), 'site')}, {words.count(patients, 'patient')}, {words.count(images, 'image')}. No "
        f"patient stands in two parts. Left: images to train, validate and test. Right: share of positive test images."
        f"{_unseen(results)}"
    )


@styled
def draw(results: Results) -> Figure:
    """Draw one row per site: stacked bars of images, a dot for prevalence."""
    sites: list[dict[str, Any]] = results.record["data"]["sites"]
    if not sites:
        return missing("No site is in the run's record.")
    height = 0.3 * len(sites) + 1.0
    figure = Figure(figsize=(WIDTH, height))
    bottom, tall = 0.5 / height, (height - 0.95) / height
    bars = figure.add_axes((0.235, bottom, 0.36, tall))
    dots = figure.add_axes((0.8, bottom, 0.18, tall), sharey=bars)
    left = [0] * len(sites)
    for part, colour, hatch in PARTS:
        amounts = [site[part]["images"] for site in sites]
        drawn = bars.barh(range(len(sites)), amounts, left=left, height=0.62, color=colour, hatch=hatch, label=part,
                          edgecolor=PAPER, linewidth=0.6)  # fmt: skip
        for patch, site in zip(drawn, sites, strict=True):
            if site["role"] == "held-out" and part != "test":
                patch.set(facecolor=RULE, hatch="")
        left = [a + b for a, b in zip(left, amounts, strict=True)]
    for y, site in enumerate(sites):
        patients = sum(site[part]["patients"] for part, _, _ in PARTS)
        text = f"{words.count(left[y], 'image')}, {words.count(patients, 'patient')}"
        bars.text(1.03, y, text, transform=bars.get_yaxis_transform(), va="center", fontsize=7.5)
        _prevalence(dots, y, site["positive_share"])
        if site["role"] == "held-out":
            bars.axhspan(y - 0.5, y + 0.5, color=TINT, zorder=0)
            dots.axhspan(y - 0.5, y + 0.5, color=TINT, zorder=0)
    bars.set_yticks(range(len(sites)), [_label(site) for site in sites])
    bars.set_ylim(len(sites) - 0.4, -0.6)
    bars.set_xlabel("images")
    bars.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
    dots.tick_params(labelleft=False)
    dots.set_xlim(0, 1.2)
    dots.set_xticks([0, 0.5, 1])
    dots.set_xlabel("prevalence (positive test images)", fontsize=7.5)
    for axis in (bars, dots):
        axis.grid(axis="x")
        axis.spines["left"].set_visible(False)
    return figure


def _unseen(results: Results) -> str:
    """Say what a held-out site's images are used for, if there is one."""
    if not results.sites("held-out"):
        return ""
    return (
        " Shaded: held out; its test images judge. Its grey images train nothing: the validation images are judged "
        "after each round for the learning curves, and on the training images attention is measured."
    )


def _label(site: dict[str, Any]) -> str:
    name = words.shorten(site["name"], 26)
    return f"{name} (held out)" if site["role"] == "held-out" else name


def _prevalence(axis: Any, y: int, share: float | None) -> None:
    if share is None or words.number(share) == words.DASH:
        axis.text(0.5, y, "not defined", ha="center", va="center", fontsize=7, color=MUTED, fontstyle="italic")
        return
    axis.plot([0, share], [y, y], color=MUTED, linewidth=0.8)
    axis.plot([share], [y], marker="o", markersize=5, color=INK, label="prevalence")
    axis.text(share + 0.05, y, words.number(share, 2), va="center", fontsize=7.5)
