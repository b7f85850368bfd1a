"""Print the README's table of results from the tables in docs/results: `python scripts/results_table.py`."""

import csv
import math
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs" / "results"
METHODS = ("federated", "local only", "pooled", "best single site", "ensemble of locals", "leave one site out")


def main() -> None:
    """Print one Markdown table per experiment, its primary metric at every site."""
    for folder in sorted(path.parent for path in RESULTS.glob("*/headline.csv")):
        with (folder / "headline.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        metric = rows[0]["metric"]  # the primary one stands first
        rows = [row for row in rows if row["metric"] == metric]
        sites = list(dict.fromkeys(row["site"] for row in rows))
        cells = {(row["method"], row["site"]): row for row in rows}
        print(f"**{folder.name}** ({metric}, {rows[0]['seeds']} seeds, `consilium run {folder.name}`)\n")
        print("| " + " | ".join(["method", *sites]) + " |\n|" + "---|" * (len(sites) + 1))
        for method in METHODS:
            if any(name == method for name, _ in cells):
                print("| " + " | ".join([method, *(cell(cells.get((method, site))) for site in sites)]) + " |")
        print()


def cell(row: dict[str, str] | None) -> str:
    """Write value and interval, or a dash."""
    if row is None or math.isnan(float(row["value"] or "nan")):
        return "–"
    low, high = (float(row[key] or "nan") for key in ("low", "high"))
    return f"{float(row['value']):.3f} ({low:.3f}–{high:.3f})".replace("(nan–nan)", "").strip()


if __name__ == "__main__":
    main()
