"""Print docs/results/attention-kinds as Markdown: each kind's federated model beside its own baselines."""

import csv
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "attention-kinds"
METHODS = ("federated", "local only", "pooled", "best single site", "ensemble of locals")
MEAN, HELD_OUT = "all sources (mean)", "held-out (mean)"


def cells(path: Path) -> list[str]:
    """Give the primary metric of every method over the sources, and of the federated model over held-out sites."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["method"], row["site"]): row for row in rows if row["metric"] == rows[0]["metric"]}
    wanted = [(method, MEAN) for method in METHODS] + [("federated", HELD_OUT), ("pooled", HELD_OUT)]
    return [cell(found.get(key)) for key in wanted]


def cell(row: dict[str, str] | None) -> str:
    """Give value and 95 % interval."""
    if row is None or not row["value"]:
        return "–"
    value, low, high = (float(row[key]) for key in ("value", "low", "high"))
    return f"{value:.3f} ({low:.3f}–{high:.3f})"


def main() -> None:
    """Print one table per data set."""
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        print(f"\n**{folder.name}** (`consilium run attention-kinds-{folder.name} --set model.attention=KIND`)\n")
        head = ("attention", *METHODS, "federated, held-out", "pooled, held-out")
        print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
        for path in sorted(folder.glob("*.csv")):
            print(f"| {' | '.join((f'`{path.stem}`', *cells(path)))} |")
        differences(folder / "against-none")


def differences(folder: Path) -> None:
    """Print what each kind gains over no attention on the same patients; bold where the interval does not hold zero."""
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        return
    print("\nAgainst no attention, on the same patients, 95 % interval:\n")
    print("| attention | all sources (mean) | worst source | held-out (mean) |\n| --- | --- | --- | --- |")
    for path in paths:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        found = {row["site"]: row for row in rows if row["metric"] == rows[0]["metric"]}
        print(f"| `{path.stem}` | {' | '.join(gain(found.get(place)) for place in (MEAN, 'worst source', HELD_OUT))} |")


def gain(row: dict[str, str] | None) -> str:
    """Give a difference and its interval."""
    if row is None or not row["low"]:
        return "–"
    difference, low, high = (float(row[key]) for key in ("difference", "low", "high"))
    shown = f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{shown}**" if low > 0 or high < 0 else shown


if __name__ == "__main__":
    main()
