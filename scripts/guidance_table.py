"""Print docs/results/guidance as Markdown: each switch beside no guidance, on the same patients."""

import csv
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "guidance"
KINDS = RESULTS.parent / "attention-kinds"
SUMMARIES = ("all sources (mean)", "worst source", "held-out (mean)")
BASELINES = ("local only", "pooled", "best single site")


def main() -> None:
    """Print one table per data set: differences of the primary metric, and the baselines without guidance."""
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        print(f"\n**{folder.name}**\n\n{baselines(folder / 'none.csv')}\n")
        print("| switch | protocol | sites | without | with | difference | 95 % interval |\n|" + " --- |" * 7)
        for path in sorted(folder.glob("*-none.csv")):
            switch = path.stem.removesuffix("-none").split("@")
            for row in rows(path):
                if row["site"] in SUMMARIES:
                    print(line(switch[0], switch[1], row))


def rows(path: Path) -> list[dict[str, str]]:
    """Give the rows of the primary metric."""
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    return [row for row in found if row["metric"] == found[0]["metric"]]


def line(switch: str, protocol: str, row: dict[str, str]) -> str:
    """Give one row; bold where the interval does not hold zero."""
    low, high = float(row["low"]), float(row["high"])
    difference = f"{float(row['difference']):+.3f}"
    shown = f"**{difference}**" if low > 0 or high < 0 else difference
    values = f"{float(row['baseline']):.3f} | {float(row['run']):.3f}"
    return f"| {switch} | {protocol} | {row['site']} | {values} | {shown} | {low:+.3f} to {high:+.3f} |"


def baselines(path: Path) -> str:
    """Say what training without a federation reaches, mean over the sources; else take the same body's of the kinds."""
    means = {row["method"]: row["value"] for row in rows(path) if row["site"] == SUMMARIES[0]}
    told = ""
    if not set(BASELINES) <= set(means):
        other = KINDS / path.parent.name / "cbam.csv"
        means = {row["method"]: row["value"] for row in rows(other) if row["site"] == SUMMARIES[0]}
        told = f" (`attention-kinds/{path.parent.name}/cbam.csv`, the same settings)"
    return f"Without a federation{told}: " + ", ".join(f"{name} {float(means[name]):.3f}" for name in BASELINES) + "."


if __name__ == "__main__":
    main()
