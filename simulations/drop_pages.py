"""What `consilium study drop` shows: a table or one JSON object, CSV files, and the drop against each predictor."""

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from simulations.drop import Drop
from simulations.report.drop import draw_drop
from simulations.report.sections import privacy_text
from simulations.results import write_whole, writing
from simulations.shift_pages import as_csv

COLUMNS = ("spearman", "low", "high", "slope", "rmse", "rmse_null", "p")


def show_drop(found: Drop, out: Path, as_json: bool) -> None:
    """Write `dyads.csv`, `relations.csv` and `drop.png` under `out` and print what was found."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "dyads.csv", as_csv(found.dyads))
        write_whole(out / "relations.csv", as_csv(found.relations))
        picture = io.BytesIO()
        draw_drop(found).savefig(picture, format="png", dpi=160)
        write_whole(out / "drop.png", picture.getvalue())
    if as_json:
        body = {
            "run": str(found.run),
            "out": str(out),
            "privacy": found.privacy,
            "metric": found.metric,
            "seeds": list(found.seeds),
            "relations": [_finite(row) for row in found.relations],
            "dyads": [_finite(row) for row in found.dyads],
        }
        sys.stdout.write(json.dumps(body, allow_nan=False) + "\n")
        return
    count = found.relations[0]["dyads"]
    table = Table(title=f"What tells the drop of {found.metric}: {count} pairs, {len(found.seeds)} seed(s)", box=None)
    for name in ("predictor", "Spearman", "a site left out", "slope", "RMSE", "RMSE of mean", "p (QAP)"):
        table.add_column(name, justify="left" if name == "predictor" else "right")
    for row in found.relations:
        rho, low, high, slope, rmse, null, p = (_number(row[name]) for name in COLUMNS)
        table.add_row(row["predictor"], rho, f"{low} to {high}" if low != "–" else low, slope, rmse, null, p)
    console = Console()
    console.print(table)
    console.print(
        "RMSE: the drop at a site predicted by a line fitted without it; beside it that of the mean drop. p cannot be "
        "below one over the orders of the training sites.",
        soft_wrap=True,
    )
    console.print(privacy_text(found.privacy), style="bold")
    console.print(str(out), soft_wrap=True)


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: what is undefined is null."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
