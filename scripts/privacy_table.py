"""Print docs/results/privacy as Markdown: every epsilon beside training without privacy, its baselines, and attacks."""

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


ATTACKS = (
    ("canaries", "lower bound on ε", "lower bound on ε from canaries"),
    ("membership", "area under the ROC curve", "membership, AUROC"),
    ("signature-membership n=10", "area under the ROC curve", "membership from a signature of ten, AUROC"),
    ("inversion search", "share of images told from all others", "inverted images told from all others"),
)


def audits(folder: Path) -> None:
    """Print what the attacks reached at every epsilon, with the intervals and what the claim allows."""
    print(
        f"\n| epsilon | {' | '.join(title for _, _, title in ATTACKS)} | verdicts |\n|{' --- |' * (2 + len(ATTACKS))}"
    )
    for epsilon in ORDER:
        path = folder / f"{epsilon}-audit.csv"
        if path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            found = {(row["attack"], row["measure"]): row for row in rows}
            cells = [reached(found[attack, measure]) for attack, measure, _ in ATTACKS]
            verdicts = [row["verdict"] for row in rows if row["verdict"] != "no-bound"]
            said = ", ".join(f"{verdicts.count(each)} {each}" for each in ("within", "undecided", "exceeds"))
            cells.append(said if verdicts else "no claim")
            print(f"| {'∞, no privacy' if epsilon == 'none' else epsilon} | {' | '.join(cells)} |")


def reached(row: dict[str, str]) -> str:
    """Give one attack's success, its interval, and what the claim allows."""
    allowed = "" if row["claimed_bound"] in ("inf", "") else f", allowed {short(row['claimed_bound'])}"
    return f"{short(row['success'])} ({short(row['low'])}–{short(row['high'])}){allowed}"


def short(text: str) -> str:
    """Give three digits."""
    return "∞" if text in ("inf", "") else f"{float(text):.3g}"


if __name__ == "__main__":
    main()
