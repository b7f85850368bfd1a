"""Print docs/results/shift-drop as Markdown: Spearman's correlation of every predictor with the drop, by kind."""

import csv
import math
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "shift-drop"
PREDICTORS = ("add_w", "add_m", "add_f", "d2_projected", "feature_frechet", "confidence", "entropy", "atc")


def main() -> None:
    """Print one table per data set; in bold what predicts a site left out better than the mean drop does."""
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        print(f"\n**{folder.name}**\n")
        print(f"| attention | pairs | {' | '.join(PREDICTORS)} |\n|{' --- |' * (len(PREDICTORS) + 2)}")
        for path in sorted(folder.glob("*.csv")):
            with path.open(newline="") as file:
                rows = {row["predictor"]: row for row in csv.DictReader(file)}
            print(f"| `{path.stem}` | {rows['add_w']['dyads']} | {' | '.join(map(cell, map(rows.get, PREDICTORS)))} |")


def cell(row: dict[str, str] | None) -> str:
    """Give ρ, bold where the line's error is below that of the mean."""
    if row is None or not math.isfinite(float(row["spearman"])):
        return "–"
    text = f"{float(row['spearman']):.2f}"
    return f"**{text}**" if float(row["rmse"]) < float(row["rmse_null"]) else text


if __name__ == "__main__":
    main()
