"""One run as a person sees it: progress while it goes, Ctrl-C that loses nothing, table and report at the end."""

import json
import math
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.commands import INTERRUPTED
from common.errors import ConsiliumError
from server.rounds import Stopped
from simulations.display import Display, headline
from simulations.experiment import Experiment
from simulations.external import External
from simulations.pipeline import Run
from simulations.record import code_record
from simulations.report.build import build_report
from simulations.report.sections import privacy_text
from simulations.results import Results, save
from simulations.run_folder import check_folder, claimed, new_folder
from simulations.study import Study
from simulations.trainer import label, new_stop_flag

COLUMNS = ("method", "site", "role", "metric", "value", "low", "high", "n")
AGAIN = "stopping after this round; press Ctrl-C again to stop at once …"


def conduct(experiment: Experiment, folder: Path | None, resume: bool, as_json: bool) -> None:
    """Run an experiment in its folder, show it, and print the result.

    Args:
        experiment: What to do.
        folder: Where; None makes a new folder under `runs/`. Nothing is made before settings and data are found good.
        resume: Whether the folder may hold this run already.
        as_json: Whether stdout gets one JSON object instead of the table.

    Raises:
        ConsiliumError: Anything that the user can cause or cure.
        typer.Exit: 130 when the user stopped the run; it then says how to go on.
    """
    if folder is not None:
        check_folder(folder, experiment, resume)  # again when it is claimed; reading the images can take minutes
    study = Study(experiment)
    place = folder or new_folder(experiment.study.name)
    code = code_record()
    now = {"data": study.federation.data_digest, "code": code["digest"]}
    with claimed(place, experiment, now, resume) as began, going_on(f"consilium resume {shlex.quote(str(place))}"):
        _say(f"{privacy_text(experiment.config.protection)}\nRun folder: {place}")
        results, page = _work(Run(study, place, began, code))
    if as_json:
        print_json(results, page)
    else:
        Console().print(headline(results, page))


def _work(run: Run) -> tuple[Results, Path]:
    """Train, judge and report, and say what is going on."""
    study, stop = run.study, new_stop_flag()
    totals = {label(job): study.experiment.config.rounds for job in study.jobs(run.folder)}
    roles = {site.name: site.role for site in study.federation.sites}
    with stopping(stop), Display(totals, roles) as display:
        run.train(stop, display.update)
    _say(f"Judging on the test images, {study.experiment.study.bootstrap} resamples of patients …")
    results = run.judge()
    _say("Writing the report …")
    page = build_report(results, run.folder)
    run.clock.lap("report")
    results.record["seconds"] = dict(run.clock.seconds)
    save(results, run.folder)
    return results, page


@contextmanager
def going_on(command: str) -> Iterator[None]:
    """However the work in a run folder ends before its time, say that nothing is lost and how to go on."""
    how = f"every finished round is saved. Go on with: {command}"
    try:
        yield
    except (Stopped, KeyboardInterrupt):
        _say(f"stopped; {how}")
        raise typer.Exit(INTERRUPTED) from None
    except ConsiliumError as error:
        # A run folder's error says by itself whether going on makes sense.
        _say(f"error: {error}\nWhen that is cured: {how}")
        raise typer.Exit(error.exit_code) from None


def _say(text: str) -> None:
    typer.echo(text, err=True)


def print_json(results: Results, page: Path | None) -> None:
    """Print the one JSON object that ends a run."""
    body = {
        "run": str(results.folder),
        "report": str(page) if page else None,
        "config_digest": results.record["config_digest"],
        "privacy": results.record["privacy"],
        "table": _json_rows(results.rows("headline")),
    }
    sys.stdout.write(json.dumps(body, allow_nan=False) + "\n")


def _json_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the promised columns; JSON has no NaN: undefined is null."""
    return [{name: _plain(row[name]) for name in COLUMNS} for row in rows]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def stopping(stop: Any) -> Iterator[None]:
    """Turn the first Ctrl-C into a stop after the round; the second one ends at once."""

    def once(*_: object) -> None:
        _say(f"\n{AGAIN}")
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
            "privacy": found.privacy,
            "notes": found.notes,
            "table": _json_rows(found.table),
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
    Console().print(Text(privacy_text(found.privacy), style="bold"))
    for note in found.notes:
        _say(f"note: {note}")
