"""Print docs/results/privacy as Markdown: every epsilon beside training without privacy and its baselines."""

import csv
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "privacy"
SUMMARIES = ("all sources (mean)", "worst source", "held-out (mean)")
ORDER = ("none", "8", "3", "1")


def main() -> None:
    """Print one table per data set: the primary metric with its interval over patients and seeds."""
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        print(
            f"\n**{folder.name}**\n\n| epsilon | method | {' | '.join(SUMMARIES)} |\n|{' --- |' * (2 + len(SUMMARIES))}"
        )
        for epsilon in ORDER:
            path = folder / f"{epsilon}.csv"
            if path.exists():
                for method, row in methods(path).items():
                    cells = " | ".join(row.get(site, "–") for site in SUMMARIES)
                    print(f"| {'∞, no privacy' if epsilon == 'none' else epsilon} | {method} | {cells} |")
        audits(folder)


def methods(path: Path) -> dict[str, dict[str, str]]:
    """Give each method's value with interval by summary of sites, of the primary metric."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["metric"] == rows[0]["metric"] and row["site"] in SUMMARIES:
            value, low, high = (float(row[name]) for name in ("value", "low", "high"))
            found.setdefault(row["method"], {})[row["site"]] = f"{value:.3f} ({low:.3f}–{high:.3f})"
    return found


def audits(folder: Path) -> None:
    """Print what attacks reached, where a run was audited."""
    for path in sorted(folder.glob("*-audit.csv")):
        print(f"\nAttacks on the run at epsilon {path.stem.removesuffix('-audit')}:\n")
        print("| attack | measure | success | 95 % interval | claim allows | verdict |\n|" + " --- |" * 6)
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                cells = (row["attack"], row["measure"], *(short(row[name]) for name in ("success",)))
                interval = f"{short(row['low'])} to {short(row['high'])}"
                print(f"| {' | '.join(cells)} | {interval} | {short(row['claimed_bound'])} | {row['verdict']} |")


def short(text: str) -> str:
    """Give three digits."""
    return "∞" if text in ("inf", "") else f"{float(text):.3g}"


if __name__ == "__main__":
    main()
