"""What `consilium study corruptions` shows: tables or one JSON object, CSV files, and curves over severity."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from simulations.corrupted_site import FLOOR
from simulations.findings import print_json, write_findings, write_study
from simulations.report import words
from simulations.report.robustness import ROLES, draw_families, draw_robustness
from simulations.report.sections import privacy_text
from simulations.robustness import Robustness

Row = dict[str, Any]
NUMBERS = {
    "relative_robustness": "kept",
    "as_js": "attention",
    "flipped": "flipped",
    "moved_alone": "moved alone",
    "flipped_alone": "flipped alone",
}
"""Column of the summary to its head; the files have more."""
ERRORS = {"ce": "CE", "relative_ce": "relative CE"}
LEGEND = (
    "lost: with its 95 % interval over patients and seeds. kept: share of what lies above chance. attention: AS_JS, 1 "
    "where the map did not move. moved alone: images whose map moved and whose answer did not; flipped alone the "
    "reverse. –: undefined here. Top cells, centres, signatures and the coupling of attention and answer: rows.csv."
)


def show_robustness(found: Robustness, out: Path, as_json: bool) -> None:
    """Write tables, pictures and what a report shows under `out`, and print what was found."""
    body = {
        "privacy": found.privacy,
        "metric": found.metric,
        "modality": found.modality,
        "seeds": list(found.seeds),
        "reference": found.reference.name if found.reference else "",
        "roles": found.roles,
        "summary": found.summary,
        "rows": found.rows,
    }
    write_findings(
        out,
        {"rows": found.rows, "summary": found.summary, "roles": found.roles},
        {"robustness": draw_families(found), "curves": draw_robustness(found)},
    )
    write_study(out, found.of, body)
    if as_json:
        print_json({**body, "run": str(found.run), "out": str(out)})
        return
    console = Console()
    for row in found.roles:
        console.print(_table(found, row))
        console.print(_in_words(found, row), soft_wrap=True)
    console.print(LEGEND, soft_wrap=True)
    console.print(privacy_text(found.privacy), style="bold")
    console.print(str(out), soft_wrap=True)
    if out.parent == found.run:
        console.print(f"In the report after: consilium report {found.run}", soft_wrap=True)


def _table(found: Robustness, overall: Row) -> Table:
    role = overall["role"]
    table = Table(
        title=f"{ROLES[role]}: {words.title(found.metric)} {words.interval(_ended(overall, 'clean'))} when clean; mean "
        f"over five severities, {words.count(overall['sites'], 'site')} and {words.count(len(found.seeds), 'seed')}",
        box=None,
    )
    errors = {key: head for key, head in ERRORS.items() if key in found.summary[0]}
    table.add_column("corruption", no_wrap=True)
    for head in ("lost", "95 %", *errors.values(), *NUMBERS.values()):
        table.add_column(head, justify="right", no_wrap=head == "95 %")
    still = next(row for row in found.rows if row["corruption"] == FLOOR[0] and row["role"] == role)
    rows = [row for row in found.summary if row["role"] == role]
    for row in [*rows, {"relative_robustness": math.nan, **dict.fromkeys(errors, math.nan), **still}]:
        ends = " to ".join(words.number(row[f"drop_{end}"], 2, signed=True) for end in ("low", "high"))
        ratios = ["excluded" if row.get(f"{key}_excluded") else words.number(row[key], 2) for key in errors]
        cells = [words.number(row[key]) for key in NUMBERS]
        table.add_row(row["corruption"], words.number(row["drop"], 3, signed=True), ends, *ratios, *cells)
    return table


def _in_words(found: Robustness, row: Row) -> str:
    """Give the means over all corruptions of one role, and what they leave out."""
    drop = {**_ended(row, "drop"), "difference": row["drop"]}
    said = (
        f"Over all corruptions {words.interval(drop, 3, 'difference')} lost; attention stayed by mAS "
        f"{words.interval(_ended(row, 'mas'))}."
    )
    if "mce" in row:
        out = row["relative_ce_excluded"]
        said += (
            f" Against {found.reference.name if found.reference else ''}: mCE {words.interval(_ended(row, 'mce'), 2)}, "
            f"relative mCE {words.interval(_ended(row, 'relative_mce'), 2)}; 1 is as bad as the reference."
        )
        said += f" Relative without {out}: they cost the reference less than 0.02." if out else ""
    return said


def _ended(row: Row, key: str) -> Row:
    return {"value": row[key], "low": row[f"{key}_low"], "high": row[f"{key}_high"]}
