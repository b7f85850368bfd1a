"""What `consilium study shift` shows: a table or one JSON object, CSV files and the matrix as a picture."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from simulations.drop import Drop
from simulations.drop_pages import print_relations, write_drop
from simulations.findings import print_json, write_findings
from simulations.report.sections import privacy_text
from simulations.report.shift import LEVEL, draw_blocks, draw_shift
from simulations.shift import Shift
from simulations.shift_rows import DISTANCES


def show_shift(found: Shift, related: Drop | str, out: Path, as_json: bool) -> None:
    """Write tables and pictures under `out` and print what was found.

    Args:
        found: Distances, what moved, and who would have raised an alarm.
        related: How distance goes with the loss of accuracy, or what the run lacks for that.
        out: Folder.
        as_json: One JSON object instead of tables for people.
    """
    tables = {"pairs": found.pairs, "blocks": found.blocks, "watch": found.watch}
    write_findings(out, tables, {"shift": draw_shift(found), "blocks": draw_blocks(found)})
    if isinstance(related, Drop):
        write_drop(related, out)
    if as_json:
        print_json(
            {
                "run": str(found.run),
                "out": str(out),
                "privacy": found.privacy,
                "seeds": list(found.seeds),
                "pairs": found.pairs,
                "blocks": top_blocks(found),
                "watch": found.watch,
                "relations": related.relations if isinstance(related, Drop) else [],
            }
        )
        return
    _print(found, related, out)


def top_blocks(found: Shift) -> list[dict[str, Any]]:
    """Give, for each pair, the block that moved most, all heads together."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in found.blocks:
        if row["head"]:
            continue
        key = (row["first"], row["second"])
        if key not in best or row["w"] > best[key]["w"]:
            best[key] = row
    return list(best.values())


def _print(found: Shift, related: Drop | str, out: Path) -> None:
    table = Table(title=f"Attention between sites, mean of {len(found.seeds)} seed(s)", box=None)
    for name in ("sites", *DISTANCES.values(), "q", "moved most"):
        table.add_column(name, justify="left" if name in ("sites", "moved most") else "right", overflow="fold")
    moved = {(row["first"], row["second"]): row for row in top_blocks(found)}
    for row in sorted(found.pairs, key=lambda row: -row["d2_projected"]):
        most = moved[row["first"], row["second"]]
        star = " *" if row["q"] <= LEVEL else ""
        table.add_row(
            f"{row['first']} · {row['second']}",
            *(f"{row[name]:.3f}" for name in DISTANCES),
            f"{row['q']:.3f}{star}",
            f"{most['block']} ({most['w']:.3f}){_head(found, most)}",
        )
    console = Console()
    console.print(table)
    floor = float(np.mean([row["add_w_floor"] for row in found.pairs]))
    console.print(
        f"* differs beyond chance: permutation of patients on D²⊥, Benjamini–Hochberg at {LEVEL:.0%}. Two samples of "
        f"one site would read an ADD-W of about {floor:.3f}. D²⊥ is blind to prevalence, D² marginal is not.",
        soft_wrap=True,
    )
    console.print(_watch(found))
    console.print(
        "Every site as if it were new, its test patients in windows: normal, as patients vary; heterogeneous, as the "
        "other source sites vary; alarm, beyond both. Capital: of an e-process that began with 1; 100 is an alarm.",
        soft_wrap=True,
    )
    if isinstance(related, Drop):
        print_relations(related, console)
    else:
        console.print(f"Relation to the loss of accuracy: none. {related}", style="dim", soft_wrap=True)
    console.print(privacy_text(found.privacy), style="bold")
    console.print(str(out), soft_wrap=True)


def _head(found: Shift, most: dict[str, Any]) -> str:
    """Name the head that moved most in the layer of a block; empty where no head is measured alone."""
    layer = str(most["block"]).partition("/")[0]
    pair = (most["first"], most["second"])
    heads = [
        row
        for row in found.blocks
        if row["head"] and (row["first"], row["second"]) == pair and str(row["block"]).partition("/")[0] == layer
    ]
    if not heads:
        return ""
    top = max(heads, key=lambda row: float(row["w"]))
    return f", head {top['head']} ({top['w']:.3f})"


def _watch(found: Shift) -> Table:
    table = Table(title="Would it have raised the alarm?", box=None)
    columns = {
        "statistic": "D²⊥ of a window",
        "q_sample": "patients vary",
        "q_site": "sites vary",
        "ewma": "EWMA",
        "capital": "capital",
    }
    for name in ("site", "windows", *columns.values(), "verdict"):
        table.add_column(name, justify="left" if name in ("site", "verdict") else "right")
    for row in found.watch:
        numbers = (f"{row[key]:.3f}" if np.isfinite(row[key]) else "–" for key in columns)
        table.add_row(row["site"], f"{row['windows']:.0f} of {row['window']:.0f}", *numbers, row["verdict"])
    return table
