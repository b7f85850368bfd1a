"""What `consilium study adaptation` shows: a table or one JSON object, CSV files, and pictures."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from simulations.adaptation.cells import PROMISED, base_name
from simulations.adaptation.looks import Looks
from simulations.adaptation.study import Adapted
from simulations.adaptation.summary import (
    Condition,
    by_worst,
    condition_rows,
    conditions,
    gains,
    safe_methods,
    safety,
    summary,
)
from simulations.findings import print_json, write_findings
from simulations.report.adaptation import draw_gains, draw_looks
from simulations.report.sections import privacy_text

Row = dict[str, Any]
SHOWN = ("post", "balanced_accuracy")
MANY = 400
"""JSON on the terminal holds the rows of single conditions up to so many; they are in conditions.csv anyway."""


def show_adaptation(found: Adapted, looked: Looks | None, out: Path, as_json: bool) -> None:
    """Write tables and pictures under `out` and print what was found."""
    known = conditions(found)
    total, each, safe, by_stream = summary(known), condition_rows(known), safety(known), gains(known)
    tables = {"rows": found.rows, "conditions": each, "summary": total, "gains": by_stream, "safety": safe}
    pictures = {f"gains-{phase}-{score}": _picture(known, by_stream, phase, score) for phase, score in _drawn()}
    if looked is not None and looked.rows:
        tables["attention"] = looked.rows
        pictures["attention"] = draw_looks(looked)
    write_findings(out, {name: rows for name, rows in tables.items() if rows}, pictures)
    if as_json:
        head = {"run": str(found.run), "out": str(out), "privacy": found.privacy, "seeds": list(found.seeds)}
        passes = dict(safe_methods(safe))
        body = {"summary": total, "gains": by_stream, "safety": safe, "passes": passes}
        print_json({**head, "cells": len(found.cells), **body, "conditions": each if len(each) <= MANY else []})
        return
    console = Console()
    _print_summary(console, found, total)
    _print_safety(console, safe)
    for text in dict.fromkeys(f"{row['method']}: {row['reason']}" for row in total if row["reason"]):
        console.print(text, soft_wrap=True, markup=False)
    console.print(privacy_text(found.privacy), style="bold")
    console.print(str(out), soft_wrap=True)


def _drawn() -> list[tuple[str, str]]:
    # Online AUROC is not drawn: where labels come sorted it measures time.
    return [("post", "balanced_accuracy"), ("post", "auroc"), ("online", "balanced_accuracy")]


def _picture(known: list[Condition], by_stream: list[Row], phase: str, score: str) -> Any:
    rows = [row for row in by_stream if (row["phase"], row["score"]) == (phase, score)]
    single = [
        {"method": each.cell.method, "stream": each.cell.stream, "gain": each.gain[f"{phase}_{score}"]}
        for each in known
    ]
    return draw_gains(rows, single, by_worst(known, f"{phase}_{score}"))


def _print_summary(console: Console, found: Adapted, total: list[Row]) -> None:
    sites = ", ".join(dict.fromkeys(target.site for target in found.where))
    title = (
        f"Balanced accuracy at 0.5 on patients who did not come, points against no adaptation; {sites}; "
        f"{len(found.seeds)} seed(s), batches of {', '.join(map(str, found.wish.batches))}"
    )
    table = Table(title=title, box=None)
    names = ("method", "gain", "95 %", "worst", "regret", "harmed", "AUROC", "ECE", "time", "updates", "skipped")
    for name in (*names, "resets"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=name in ("method", "95 %"))
    areas = {row["method"]: row for row in total if (row["phase"], row["score"]) == ("post", "auroc")}
    for row in total:
        if (row["phase"], row["score"]) == SHOWN:
            table.add_row(*_cells(row, areas[row["method"]]))
    console.print(table)
    console.print(
        "worst: the worst condition (stream, site, batch size); regret: mean of max(0, none − method); harmed: share "
        "of conditions that lose more than a point; ECE: its change; time: per image, none is 1. Means over conditions "
        "in which the score is defined; undefined is –, never 0.",
        soft_wrap=True,
    )


def _cells(row: Row, area: Row) -> list[str]:
    return [
        row["method"],
        _points(row["mean_gain"]),
        f"{_points(row['low'])} to {_points(row['high'])}" if math.isfinite(row["low"]) else "–",
        _points(row["worst"]),
        _number(100 * row["regret"], 1),
        f"{100 * row['harmed']:.0f} %" if math.isfinite(row["harmed"]) else "–",
        _points(area["mean_gain"]),
        f"{row['ece_change']:+.3f}" if math.isfinite(row["ece_change"]) else "–",
        _number(row["relative_time"], 1),
        *(str(row[name]) for name in ("updates", "skipped", "resets")),
    ]


def _print_safety(console: Console, safe: list[Row]) -> None:
    """Say which methods lose less than a point where nothing has to be adapted to."""
    if not safe:
        return
    console.print(
        "Where nothing has to be adapted to, or the share of positives alone differs (lower bound > −1 point):"
    )
    for method, passes in safe_methods(safe):
        own = [row for row in safe if row["method"] == method]
        if all(row["reason"] for row in own):
            console.print(f"  –     {method}: not judged", markup=False, highlight=False)
            continue
        bounds = [row["low"] for row in own if math.isfinite(row["low"])]
        lowest = f"lowest bound {_points(min(bounds))}" if bounds else "no interval"
        missing = f", {len(own) - len(bounds)} of {len(own)} without interval" if len(bounds) < len(own) else ""
        word = "pass" if passes else "FAIL"
        gate = " (release gate)" if base_name(method) in PROMISED else ""
        console.print(f"  {word}  {method}{gate}: {lowest}{missing}", markup=False, highlight=False)


def _points(value: float) -> str:
    return f"{100 * value:+.1f}" if math.isfinite(value) else "–"


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else "–"
