"""What `consilium-site predict` says of a session."""

import json
from pathlib import Path

import typer

from client.deployed.session import SHIPPED, Session

MEANING = {
    "source": "nothing new: the shipped weights answered",
    "locked": "beyond what source sites vary; locked, so the shipped weights answered",
    "adapted": "beyond what source sites vary; adapted weights answered, all six tests passed",
    "waiting": "beyond what source sites vary; adapting does no good yet, so the shipped weights answered",
    "rolled-back": "adapted weights failed a test and are gone; the shipped ones answered",
    "frozen": "beyond what source sites vary; after a rollback the shipped weights answer",
}


def show_session(session: Session, out: Path, as_json: bool) -> None:
    """Print it."""
    summary = session.summary
    if as_json:
        typer.echo(json.dumps({**summary, "out": str(out)}))
        return
    typer.echo(f"{summary['images']} images answered: {out}")
    if session.method == SHIPPED:
        typer.echo("The shipped model answered. Whether these images are like those it knows was not measured.")
        return
    for action, count in summary["actions"].items():
        typer.echo(f"  {count} windows {action}: {MEANING[action]}")
    if not summary["windows"] and session.window:
        typer.echo(f"  no whole window of {session.window} images: nothing was measured, the shipped weights answered")
    if summary["alarms"]:
        typer.echo(f"FLAGGED: {summary['alarms']} of {summary['windows']} windows. A person should look at them.")
    typer.echo(
        f"logged, head {summary['log'][:16]}. `consilium-site adaptation rollback` brings the shipped model back."
    )
