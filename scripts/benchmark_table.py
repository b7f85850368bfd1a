"""Print docs/results/benchmark as Markdown: every method at hospitals never seen, and against the reference."""

import csv
import json
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "benchmark"


def main() -> None:
    """Print one table per data set and body."""
    for path in sorted(RESULTS.glob("*/*/summary.csv")):
        record = json.loads((path.parent / "benchmark.json").read_text())
        metric, seeds, reference = record["metrics"][0], len(record["seeds"]), record["reference"]
        print(f"\n**{path.parent.parent.name}, {path.parent.name}** ({metric}, {record['protocol']}, {seeds} seeds)\n")
        print(f"| method | mean | worst | at | mean − {reference} | worst − {reference} | regret | ECE → scaled |")
        print("|" + " --- |" * 8)
        scaled = calibration(path.parent / "calibration.csv")
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row["metric"] == metric:
                    print(line(row, reference, scaled.get(row["method"], "–")))


def line(row: dict[str, str], reference: str, scaled: str) -> str:
    """Give one row; bold where the interval of a difference does not hold zero; baselines in italics."""
    name = row["method"] if row["kind"] == "method" else f"*{row['method']}*"
    values = [
        f"{float(row[of]):.3f} ({float(row[of + '_low']):.3f}–{float(row[of + '_high']):.3f})"
        for of in ("mean", "worst")
    ]
    same = row["method"] == reference
    minus = ["" if same else difference(row, of) for of in ("d_mean", "d_worst")]
    cells = [name, *values, row["worst_site"], *minus, f"{float(row['regret']):.3f}", scaled]
    return f"| {' | '.join(cells)} |"


def difference(row: dict[str, str], of: str) -> str:
    """Give a difference with its interval."""
    value, low, high = (float(row[of + end]) for end in ("", "_low", "_high"))
    shown = f"**{value:+.3f}**" if low > 0 or high < 0 else f"{value:+.3f}"
    return f"{shown} ({low:+.3f} to {high:+.3f})"


def calibration(path: Path) -> dict[str, str]:
    """Give each method's mean calibration error over the judged sites, before and after one temperature."""
    found: dict[str, list[tuple[float, float]]] = {}
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["method"], []).append((float(row["ece"]), float(row["ece_scaled"])))
    return {
        method: " → ".join(f"{sum(column) / len(pairs):.3f}" for column in zip(*pairs, strict=True))
        for method, pairs in found.items()
    }


if __name__ == "__main__":
    main()
