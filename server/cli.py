"""The coordinator's commands. Nothing here imports simulations."""

import json
from pathlib import Path
from typing import Annotated

import typer

from common.commands import answering, command_line

app = command_line(
    "consilium-server",
    "What the coordinator runs: check the settings of a run before any hospital is asked to train.",
)


@app.command()
@answering
def check(
    settings: Annotated[Path | None, typer.Argument(help="A TOML of run settings; none checks the defaults.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read a run's settings, look up every part they name, and look at the folder and at a checkpoint to resume."""
    from server.readiness import check_run

    found = check_run(settings)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key, value in found.items():
        typer.echo(f"{key:>15}  {value}")
    typer.echo(f"ready. Privacy mechanism: {found['privacy']}.")


def main() -> None:
    """Run the command line."""
    app()
