"""`consilium export`: a finished run leaves for the hospitals."""

from pathlib import Path
from typing import Annotated

import typer

from common.commands import answering
from simulations.stepping import stepping


@answering
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="Folder to write; nothing in it is overwritten.")],
    key: Annotated[Path, typer.Option(help="Your private key, which signs; made where there is none. Keep it.")],
    seed: Annotated[int | None, typer.Option(help="One of the run's seeds; by default the first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Pack the federated model of a run for hospitals: its arrays, and what adaptation may know of the source sites.

    A few KB of statistics go with the model: how its attention falls on each class, how far source sites lie from one
    another, which heads and gates are healthy. They are sums over patients without noise; a run under privacy ships
    none of them. Both files are signed; `consilium-site predict` opens them at a hospital that trusts the key.
    """
    from simulations.export import export_run
    from simulations.export_pages import show_export

    with stepping(as_json) as step:
        found = export_run(run, out, key, seed, step)
    show_export(found, as_json)
