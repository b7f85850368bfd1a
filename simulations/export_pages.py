"""What `consilium export` shows: what was written, whose it is, and the lines for a hospital's TOML."""

from dataclasses import asdict

import typer

from simulations.export import ARTEFACT, MODEL, Exported
from simulations.findings import print_json
from simulations.report.sections import privacy_text

TOML = """A hospital that wants to predict with it copies the folder and adds to its TOML:

[shipped]
folder = "{folder}"
trusted-key = "{key}"  # tell it by another way than the files
"""


def show_export(found: Exported, as_json: bool) -> None:
    """Print it."""
    if as_json:
        print_json({**asdict(found), "folder": str(found.folder), "adaptations": list(found.adaptations)})
        return
    for name in (MODEL, ARTEFACT):
        size = (found.folder / name).stat().st_size
        typer.echo(f"{found.folder / name}  {size / 1024:,.1f} KiB")
    typer.echo(f"signed by {found.key}")
    typer.echo(f"methods of adaptation that it allows: {', '.join(found.adaptations)}")
    if found.note:
        typer.echo(f"note: {found.note}.")
    typer.echo(privacy_text(found.privacy))
    typer.echo(TOML.format(folder=found.folder.name, key=found.key))
