"""The commands of a hospital's operator. Nothing here imports simulations."""

from pathlib import Path
from typing import Annotated

import typer

from client.deployed.commands import commands as adaptation
from client.ledger_commands import commands as ledger
from common.commands import answering, command_line

app = command_line(
    "consilium-site",
    "What a hospital runs: check that this site is ready, and see what left it. Images never do.",
)

app.add_typer(ledger, name="ledger")
app.add_typer(adaptation, name="adaptation")


@app.command()
@answering
def identity(
    site: Annotated[str, typer.Argument(help="The site's name in the federation.")],
    out: Annotated[Path, typer.Option(help="File for the private key; it never leaves the site.")],
) -> None:
    """Make this site's key for secure aggregation and print the public one, for the coordinator's roster."""
    from common.secagg.identity import Identity

    made = Identity.fresh(site)
    made.write(out)
    typer.echo(made.public.hex())


@app.command()
@answering
def check(
    site: Annotated[Path, typer.Argument(help="The site's TOML: name, state and [data].")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read the site's settings, open its data, look at disk and device; say what is there or what is wrong."""
    from client.readiness import check_site, show

    show(check_site(site), as_json)


@app.command()
@answering
def predict(
    site: Annotated[Path, typer.Argument(help="The site's TOML, with [shipped].")],
    images: Annotated[Path, typer.Argument(help="An .npz archive, or a folder with a manifest; labels may be absent.")],
    out: Annotated[Path, typer.Option(help="CSV to write: a row per image, a probability per class.")],
    adapt: Annotated[str, typer.Option(help="A method of adaptation that the site's [adaptation] allows.")] = "none",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask the shipped model about new images, adapted only as far as this site allows; nothing leaves the site.

    Every session begins with the shipped model. One that adapts is logged: `consilium-site adaptation log`.
    """
    from client.deployed.pages import show_session
    from client.deployed.session import predict_images
    from client.site_settings import read_site_config

    show_session(predict_images(read_site_config(site), images, out, adapt), out, as_json)


def main() -> None:
    """Run the command line."""
    app()
