"""What `consilium study shift` shows: a table or one JSON object, CSV files and the matrix as a picture."""

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from simulations.report.sections import privacy_text
from simulations.report.shift import draw_shift
from simulations.results import write_whole, writing
from simulations.shift import Shift
from simulations.shift_rows import DISTANCES

LEVEL = 0.05
TITLES = ("ADD-W", "ADD-M", "ADD-F", "D²⊥", "D² marginal", "feature Fréchet")


def show_shift(found: Shift, out: Path, as_json: bool) -> None:
    """Write `pairs.csv`, `blocks.csv` and `shift.png` under `out` and print what was found."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "pairs.csv", as_csv(found.pairs))
        write_whole(out / "blocks.csv", as_csv(found.blocks))
        picture = io.BytesIO()
        draw_shift(found).savefig(picture, format="png", dpi=160)
        write_whole(out / "shift.png", picture.getvalue())
    if as_json:
        whole = replace(found, blocks=top_blocks(found))
        body = {
            "run": str(whole.run),
            "out": str(out),
            "privacy": whole.privacy,
            "seeds": list(whole.seeds),
            "pairs": whole.pairs,
            "blocks": whole.blocks,
        }
        sys.stdout.write(json.dumps(body, allow_nan=False) + "\n")
        return
    _print(found, out)


def top_blocks(found: Shift) -> list[dict[str, Any]]:
    """Give, for each pair, the block that moved most."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in found.blocks:
        key = (row["first"], row["second"])
        if key not in best or row["w"] > best[key]["w"]:
            best[key] = row
    return list(best.values())


def _print(found: Shift, out: Path) -> None:
    table = Table(title=f"Attention between sites, mean of {len(found.seeds)} seed(s)", box=None)
    for name in ("sites", *TITLES, "q", "moved most"):
        table.add_column(name, justify="left" if name in ("sites", "moved most") else "right", overflow="fold")
    moved = {(row["first"], row["second"]): row for row in top_blocks(found)}
    for row in sorted(found.pairs, key=lambda row: -row["d2_projected"]):
        most = moved[row["first"], row["second"]]
        star = " *" if row["q"] <= LEVEL else ""
        table.add_row(
            f"{row['first']} · {row['second']}",
            *(f"{row[name]:.3f}" for name in DISTANCES),
            f"{row['q']:.3f}{star}",
            f"{most['block']} ({most['w']:.3f})",
        )
    console = Console()
    console.print(table)
    floor = float(np.mean([row["add_w_floor"] for row in found.pairs]))
    console.print(
        f"* differs beyond chance: permutation of patients on D²⊥, Benjamini–Hochberg at {LEVEL:.0%}. Two samples of "
        f"one site would read an ADD-W of about {floor:.3f}. D²⊥ is blind to prevalence, D² marginal is not.",
        soft_wrap=True,
    )
    console.print(privacy_text(found.privacy), style="bold")
    console.print(str(out), soft_wrap=True)


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    """Write rows as CSV, six significant digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
    )
    return text.getvalue().encode()
