"""Print tables of docs/results as Markdown: `python scripts/results_table.py` in full, `--summary` for the README."""

import csv
import math
import sys
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs" / "results"
METHODS = ("federated", "local only", "pooled", "best single site", "ensemble of locals", "leave one site out")
MEAN, HELD_OUT = "all sources (mean)", "held-out (mean)"
Rows = dict[tuple[str, str], dict[str, str]]


def read(folder: Path) -> tuple[str, Rows]:
    """Give the primary metric and its rows by method and site."""
    with (folder / "headline.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metric = rows[0]["metric"]  # the primary one stands first
    return metric, {(row["method"], row["site"]): row for row in rows if row["metric"] == metric}


def full(folder: Path) -> None:
    """Print every method at every site."""
    metric, cells = read(folder)
    sites = list(dict.fromkeys(site for _, site in cells))
    print(f"**{folder.name}** ({metric}, `consilium run {folder.name}`)\n")
    line("method", *sites)
    line(*["---"] * (len(sites) + 1))
    for method in METHODS:
        if any(name == method for name, _ in cells):
            line(method, *(cell(cells.get((method, site))) for site in sites))
    print()


def summary(folders: list[Path]) -> None:
    """Print the mean over the sites of each experiment, one line each; what was left out at its own sites."""
    line("experiment", "metric", *METHODS)
    line(*["---"] * (len(METHODS) + 2))
    for folder in folders:
        metric, cells = read(folder)
        found = [cells.get((method, MEAN)) or cells.get((method, HELD_OUT)) for method in METHODS]
        line(f"`{folder.name}`", metric, *(cell(row) for row in found))


def line(*cells: str) -> None:
    """Print one line of a table."""
    print(f"| {' | '.join(cells)} |")


def cell(row: dict[str, str] | None) -> str:
    """Write value and interval, or a dash."""
    if row is None or math.isnan(float(row["value"] or "nan")):
        return "–"
    low, high = (float(row[key] or "nan") for key in ("low", "high"))
    return f"{float(row['value']):.3f} ({low:.3f}–{high:.3f})"


if __name__ == "__main__":
    found = sorted(path.parent for path in RESULTS.glob("*/headline.csv"))
    if "--summary" in sys.argv[1:]:
        summary(found)
    else:
        for one in found:
            full(one)
