"""What `consilium study drop` shows: a table or one JSON object, CSV files, and the drop against each predictor."""

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from simulations.drop import Drop
from simulations.findings import print_json, write_findings
from simulations.report.drop import draw_drop
from simulations.report.sections import privacy_text

COLUMNS = ("spearman", "low", "high", "slope", "rmse", "rmse_null", "p")


def show_drop(found: Drop, out: Path, as_json: bool) -> None:
    """Write `dyads.csv`, `relations.csv` and `drop.png` under `out` and print what was found."""
    write_drop(found, out)
    if as_json:
        print_json(
            {
                "run": str(found.run),
                "out": str(out),
                "privacy": found.privacy,
                "metric": found.metric,
                "seeds": list(found.seeds),
                "relations": found.relations,
                "dyads": found.dyads,
            }
        )
        return
    console = Console()
    print_relations(found, console)
    console.print(privacy_text(found.privacy), style="bold")
    console.print(str(out), soft_wrap=True)


def write_drop(found: Drop, out: Path) -> None:
    """Write tables and picture."""
    write_findings(out, {"dyads": found.dyads, "relations": found.relations}, {"drop": draw_drop(found)})


def print_relations(found: Drop, console: Console) -> None:
    """Print how each predictor goes with the drop."""
    count = found.relations[0]["dyads"]
    table = Table(title=f"What tells the drop of {found.metric}: {count} pairs, {len(found.seeds)} seed(s)", box=None)
    for name in ("predictor", "Spearman", "a site left out", "slope", "RMSE", "RMSE of mean", "p (QAP)"):
        table.add_column(name, justify="left" if name == "predictor" else "right")
    for row in found.relations:
        rho, low, high, slope, rmse, null, p = (_number(row[name]) for name in COLUMNS)
        table.add_row(row["predictor"], rho, f"{low} to {high}" if low != "–" else low, slope, rmse, null, p)
    console.print(table)
    console.print(
        "RMSE: the drop at a site predicted by a line fitted without it; beside it that of the mean drop. p cannot be "
        "below one over the orders of the training sites.",
        soft_wrap=True,
    )


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"
