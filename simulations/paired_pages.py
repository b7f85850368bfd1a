"""What `consilium study compare` shows: a table or one JSON object, and one CSV file named after the baseline."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from simulations.findings import print_json, write_table

Row = dict[str, Any]


def show_paired(rows: list[Row], run: Path, baseline: Path, as_json: bool) -> None:
    """Write RUN/compare/BASELINE.csv and print what was found: the primary metric alone, or all as JSON."""
    path = run / "compare" / f"{baseline.name}.csv"
    write_table(path, rows)
    if as_json:
        print_json({"run": str(run), "baseline": str(baseline), "out": str(path), "rows": rows})
        return
    table = Table(
        title=f"{run.name} against {baseline.name}: {rows[0]['metric']}, {rows[0]['seeds']} seed(s)", box=None
    )
    for name in ("site", "role", run.name, baseline.name, "difference", "95 % interval", "images"):
        table.add_column(name, justify="left" if name in ("site", "role") else "right")
    for row in rows:
        if row["metric"] == rows[0]["metric"]:
            values = (f"{row[name]:.3f}" for name in ("run", "baseline"))
            interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
            table.add_row(row["site"], row["role"], *values, f"{row['difference']:+.3f}", interval, str(row["n"]))
    console = Console()
    console.print(table)
    console.print(
        "The same patients are drawn for both runs. An interval that holds 0 tells no difference.", soft_wrap=True
    )
    console.print(str(path), soft_wrap=True)
