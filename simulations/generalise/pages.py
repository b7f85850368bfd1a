"""What `consilium study generalise` shows: progress with time left, tables or one JSON object, a forest plot."""

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from simulations.display import Display
from simulations.findings import print_json, write_findings
from simulations.generalise.conduct import Contest, Generalised
from simulations.generalise.report import benchmark_page
from simulations.generalise.rows import Row
from simulations.generalise.trainings import Trainings
from simulations.report.forest import draw_forest
from simulations.report.sections import privacy_text
from simulations.report.words import shorten, title
from simulations.results import write_whole, writing
from simulations.session import going_on, stopping
from simulations.trainer import Watch, label, new_stop_flag

REPORT = "report.html"


def conduct(contest: Contest, folder: Path, as_json: bool) -> None:
    """Run a benchmark in its folder, show how far it is, and print what it found.

    Raises:
        typer.Exit: 130 when the user stopped it, or the exit code of what failed; it then says how to go on.
    """
    stop = new_stop_flag()
    say = Console(stderr=True)
    say.print(f"{privacy_text(contest.benchmark.base.config.protection)}\nFolder: {folder}", soft_wrap=True)
    shown: list[Display] = []

    def watch(trainings: Trainings) -> Watch:
        rounds = {label(job): job.training.config.rounds for job in trainings.jobs()}
        shown.append(Display(rounds, {site.name: site.role for site in contest.federation.sites}).__enter__())
        return shown[0].update

    def step(text: str) -> None:
        _end(shown)
        say.print(f"{text} …")

    again = "the same command with the same --out"
    with going_on(again), stopping(stop):
        try:
            found = contest.run(folder, stop, watch, step)
        finally:
            _end(shown)
    show(found, as_json)


def _end(shown: list[Display]) -> None:
    if shown:
        shown.pop().__exit__(None, None, None)


def show(found: Generalised, as_json: bool) -> None:
    """Write the tables and the forest plot, and print the summary of the primary metric."""
    tables = {name: rows for name, rows in found.tables.items() if rows}
    write_findings(found.folder / "tables", tables, {})
    write_findings(found.folder, {}, {"forest": draw_forest(found)})
    with writing(found.folder):
        write_whole(found.folder / REPORT, benchmark_page(found).encode())
    if as_json:
        print_json({"out": str(found.folder), "record": found.record, **tables})
        return
    console = Console()
    for table in (_levels(found), _differences(found)):
        console.print(table)
    console.print(_notes(found), soft_wrap=True)
    console.print(privacy_text(found.record["privacy"]), style="bold")
    console.print(str(found.folder / REPORT), soft_wrap=True)


def _levels(found: Generalised) -> Table:
    """One row per method and baseline: the mean over the judged sites, and the worst of them."""
    record = found.record
    name, seeds = record["title"] or record["name"], len(record["seeds"])
    table = Table(title=f"{name}\n{title(_metric(found))}, {record['protocol']}, {seeds} seed(s)", box=None)
    for column in ("method", "mean", "worst", "at", "regret"):
        table.add_column(column, justify="left" if column in ("method", "at") else "right", no_wrap=column != "at")
    for row in _summary(found):
        values = (
            f"{_number(row[of])} ({_number(row[of + '_low'])}–{_number(row[of + '_high'])})" for of in ("mean", "worst")
        )
        at = shorten(row["worst_site"], 16)
        table.add_row(row["method"], *values, at, _number(row["regret"]), style=_style(row))
    return table


def _differences(found: Generalised) -> Table:
    """One row per method and baseline: what it is better or worse than the reference."""
    table = Table(title=f"minus {found.record['reference']}", box=None)
    for column in ("method", "mean", "worst"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in _summary(found):
        if row["method"] != found.record["reference"]:
            table.add_row(row["method"], *(_difference(row, of) for of in ("d_mean", "d_worst")), style=_style(row))
    return table


def _metric(found: Generalised) -> str:
    return str(found.record["metrics"][0])


def _summary(found: Generalised) -> list[Row]:
    return [row for row in found.tables["summary"] if row["metric"] == _metric(found)]


def _style(row: Row) -> str:
    return "" if row["kind"] == "method" else "dim"


def _notes(found: Generalised) -> str:
    judged = {
        "leave-one-site-out": "Every site is judged by models that never saw it, on all its images.",
        "held-out": "Held-out sites are judged on all their images.",
        "in-federation": "Every site is judged on its own test images.",
        "site-by-site": "Each site trains alone; every other site is judged on all its images.",
    }[found.record["protocol"]]
    return (
        f"{judged} Brackets: 95 % intervals, patients and seeds resampled, the same for all methods; * where that of a "
        f"difference leaves zero out (p after Holm: tables/summary.csv). The last four rows are baselines; local is "
        f"the mean over the sites' own models. Selection: {found.record['selection']}."
    )


def _difference(row: Row, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if not math.isfinite(low):
        return "–"
    star = "*" if low > 0 or high < 0 else " "
    return f"{row[name]:+.3f} ({low:+.3f} to {high:+.3f}){star}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"
