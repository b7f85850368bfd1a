"""The commands of a hospital's operator. Nothing here imports simulations."""

from pathlib import Path
from typing import Annotated

import typer

from common.commands import answering, command_line

app = command_line(
    "consilium-site",
    "What a hospital runs: check that this site is ready to train along. Images never leave it.",
)


@app.command()
@answering
def check(
    site: Annotated[Path, typer.Argument(help="The site's TOML: name, state and [data].")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read the site's settings, open its data, look at disk and device; say what is there or what is wrong."""
    from client.readiness import check_site, show

    show(check_site(site), as_json)


def main() -> None:
    """Run the command line."""
    app()
