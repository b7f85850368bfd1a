"""Print docs/results/adaptation as Markdown: for each data set and model what every method gained, lost and cost."""

import csv
import math
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "adaptation"
COLUMNS = ("method", "gain", "95 %", "worst", "regret", "harmed", "AUROC", "ECE", "time", "safe")


def main() -> None:
    """Print one table per data set and model; balanced accuracy at 0.5 on patients who did not come, in points."""
    for folder in sorted(path.parent for path in RESULTS.glob("*/*/summary.csv")):
        print(f"\n**{folder.parent.name}, `{folder.name}`**\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        rows = read(folder / "summary.csv")
        areas = {row["method"]: row for row in rows if (row["phase"], row["score"]) == ("post", "auroc")}
        safe = read(folder / "safety.csv") if (folder / "safety.csv").exists() else []
        for row in rows:
            if (row["phase"], row["score"]) == ("post", "balanced_accuracy"):
                print(f"| {' | '.join(cells(row, areas[row['method']], safe))} |")


def read(path: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def cells(row: dict[str, str], area: dict[str, str], safe: list[dict[str, str]]) -> list[str]:
    """Give a line of the table."""
    own = [each["passes"] == "True" for each in safe if each["method"] == row["method"]]
    return [
        f"`{row['method']}`",
        points(row["mean_gain"]),
        f"{points(row['low'])} to {points(row['high'])}" if math.isfinite(float(row["low"])) else "–",
        points(row["worst"]),
        points(row["regret"], ""),
        f"{100 * float(row['harmed']):.0f} %" if math.isfinite(float(row["harmed"])) else "–",
        points(area["mean_gain"]),
        f"{float(row['ece_change']):+.3f}" if math.isfinite(float(row["ece_change"])) else "–",
        f"{float(row['relative_time']):.1f}" if math.isfinite(float(row["relative_time"])) else "–",
        f"{sum(own)} of {len(own)}" if own else "–",
    ]


def points(value: str, sign: str = "+") -> str:
    """Give percentage points, or – where undefined."""
    return f"{100 * float(value):{sign}.1f}" if math.isfinite(float(value)) else "–"


if __name__ == "__main__":
    main()
