"""What `consilium study corruptions` shows: a table or one JSON object, CSV files, and curves over severity."""

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from simulations.findings import print_json, write_findings
from simulations.report.robustness import draw_robustness
from simulations.report.sections import privacy_text
from simulations.robustness import FLOOR, Robustness

COLUMNS = ("drop", "relative_robustness", "as_js", "as_top", "flipped", "moved_alone", "flipped_alone")


def show_robustness(found: Robustness, out: Path, as_json: bool) -> None:
    """Write `rows.csv`, `summary.csv` and `robustness.png` under `out` and print what was found."""
    write_findings(out, {"rows": found.rows, "summary": found.summary}, {"robustness": draw_robustness(found)})
    if as_json:
        head = {"run": str(found.run), "out": str(out), "privacy": found.privacy, "metric": found.metric}
        more = {"modality": found.modality, "seeds": list(found.seeds), "clean": found.clean}
        print_json({**head, **more, "summary": found.summary, "rows": found.rows})
        return
    console = Console()
    title = (
        f"{found.metric} {found.clean:.3f} when clean; mean over five severities, sites and {len(found.seeds)} seed(s)"
    )
    table = Table(title=title, box=None)
    for name in ("corruption", "drop", "kept", "attention", "top cells", "flipped", "moved alone", "flipped alone"):
        table.add_column(name, justify="left" if name == "corruption" else "right", no_wrap=name == "corruption")
    still = next(row for row in found.rows if row["corruption"] == FLOOR)
    for row in [*found.summary, {**still, "relative_robustness": math.nan}]:
        table.add_row(row["corruption"], *(_number(row[name]) for name in COLUMNS))
    console.print(table)
    console.print(
        "kept: share of what lies above chance. attention, top cells: 1 where the map did not move. moved alone: "
        "images whose map moved and whose answer did not; flipped alone the reverse. Point values without intervals.",
        soft_wrap=True,
    )
    console.print(privacy_text(found.privacy), style="bold")
    console.print(str(out), soft_wrap=True)


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"
