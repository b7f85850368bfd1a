"""One run as a person sees it: progress while it goes, Ctrl-C that loses nothing, table and report at the end."""

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from server.rounds import Stopped
from simulations.display import Display, headline
from simulations.experiment import Experiment
from simulations.external import External
from simulations.pipeline import NO_PRIVACY, Study, begin
from simulations.report.build import build_report
from simulations.results import Results, save
from simulations.trainer import label, new_stop_flag

INTERRUPTED = 130
COLUMNS = ("method", "site", "role", "metric", "value", "low", "high", "n")


def default_folder(name: str) -> Path:
    """Name a run folder after the experiment and the time."""
    return Path("runs") / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def conduct(experiment: Experiment, folder: Path, resume: bool, as_json: bool) -> None:
    """Run an experiment in its folder, show it, and print the result.

    Raises:
        ConsiliumError: Anything that the user can cause or cure.
        typer.Exit: 130 when the user stopped the run; it then says how to go on.
    """
    study = Study(experiment, folder)
    begin(experiment, folder, resume)
    typer.echo(f"{NO_PRIVACY}\nRun folder: {folder}", err=True)
    stop = new_stop_flag()
    totals = {label(job): experiment.config.rounds for job in study.jobs()}
    roles = {site.name: site.role for site in study.federation.sites}
    try:
        with _stopping(stop), Display(totals, roles) as display:
            results = study.run(stop, display.update)
    except (Stopped, KeyboardInterrupt):
        typer.echo(f"stopped; every finished round is saved. Go on with: consilium resume {folder}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    started = time.monotonic()
    page = build_report(results, folder)
    results.record["seconds"]["report"] = round(time.monotonic() - started, 2)
    save(results, folder)
    if as_json:
        print_json(results, page)
    else:
        Console().print(headline(results, page))


def print_json(results: Results, page: Path | None) -> None:
    """Print the one JSON object that ends a run."""
    body = {
        "run": str(results.folder),
        "report": str(page) if page else None,
        "config_digest": results.record["config_digest"],
        "privacy": results.record["privacy"],
        "table": [{name: _plain(row[name]) for name in COLUMNS} for row in results.rows("headline")],
    }
    sys.stdout.write(json.dumps(body, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """JSON has no NaN: undefined is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _stopping(stop: Any) -> Iterator[None]:
    """Turn the first Ctrl-C into a stop after the round; the second one ends at once."""

    def once(*_: object) -> None:
        typer.echo("\nstopping after this round; press Ctrl-C again to stop at once …", err=True)
        # From a thread of its own: the flag's lock may be held by what this signal interrupted.
        threading.Thread(target=stop.set).start()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def show_external(found: External, as_json: bool) -> None:
    """Print an external validation as a table, or as one JSON object."""
    if as_json:
        body = {
            "run": str(found.run),
            "archive": str(found.archive),
            "method": found.method,
            "config_digest": found.config_digest,
            "data_digest": found.data_digest,
            "privacy": "none",
            "notes": found.notes,
            "table": [{name: _plain(row[name]) for name in COLUMNS} for row in found.table],
        }
        sys.stdout.write(json.dumps(body, allow_nan=False) + "\n")
        return
    table = Table(title=f"{found.method} on {found.archive.name}, 95 % intervals over patients", box=None)
    for name in ("site", "metric", "value", "interval", "n"):
        table.add_column(name)
    for row in found.table:
        numbers = [f"{row[name]:.3f}" if math.isfinite(row[name]) else "–" for name in ("value", "low", "high")]
        table.add_row(row["site"], row["metric"], numbers[0], f"{numbers[1]} – {numbers[2]}", str(row["n"]))
    Console().print(table)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
