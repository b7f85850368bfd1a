"""`consilium-site ledger`: what left this site, what it cost its patients, and whether the list is whole."""

import json
from pathlib import Path
from typing import Annotated

import typer

from common.commands import answering
from common.errors import ConfigError

commands = typer.Typer(no_args_is_help=True, help="What left this site, and what it cost its patients.")
Site = Annotated[Path, typer.Argument(help="The site's TOML, or a folder that holds a ledger.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@commands.command()
@answering
def show(site: Site, as_json: Json = False) -> None:
    """List every release with what all up to it cost, and say in plain language what that means."""
    from client.ledger_pages import LOOKED, rows_of, summary, where
    from common.privacy.ledger import opened
    from common.privacy.statement import upwards

    folder, budget = where(site)
    with opened(folder, budget or LOOKED) as ledger:
        rows, body = rows_of(ledger.entries(), ledger.budget.delta), summary(ledger, budget)
    if as_json:
        typer.echo(json.dumps({**body, "releases": rows}))
        return
    typer.echo(f"{'when (UTC)':<20} {'run':<10} {'round':>5}  {'what':<10} {'bytes':>10} {'epsilon so far':>14}")
    for row in rows:
        line = f"{row['at'][:19]:<20} {row['run'][:8]:<10} {row['round']:>5}  {row['purpose']:<10} {row['bytes']:>10,}"
        typer.echo(f"{line} {upwards(row['epsilon'], 4):>14}")
    typer.echo("\n" + "\n".join([body["statement"], *body["caveats"]]))
    if budget:
        typer.echo(f"The site allows epsilon {budget.epsilon:g} in all.")


@commands.command()
@answering
def verify(site: Site, as_json: Json = False) -> None:
    """Check the chain of hashes, the head and every event, and price all anew; exit code 5 and the line if damaged."""
    from client.ledger_pages import LOOKED, summary, where
    from common.privacy.ledger import opened

    folder, budget = where(site)
    with opened(folder, budget or LOOKED) as ledger:
        body = summary(ledger, budget)
    if as_json:
        typer.echo(json.dumps({**body, "whole": True}))
        return
    typer.echo(f"whole: {body['releases_made']} releases, chain and head agree, head {body['head'][:16]}.")
    typer.echo("\n".join([body["statement"], *body["caveats"]]))


@commands.command()
@answering
def export(site: Site, out: Annotated[Path, typer.Option(help="File to write.")]) -> None:
    """Write the ledger with a field for each item of NIST SP 800-226, as JSON, for a privacy officer."""
    from client.ledger_pages import LOOKED, nist, rows_of, summary, where
    from common.arrays import write_atomic
    from common.privacy.ledger import opened

    folder, budget = where(site)
    if out.exists():
        raise ConfigError(f"{out} exists. Give another --out; nothing is overwritten.")
    with opened(folder, budget or LOOKED) as ledger:
        entries = ledger.entries()
        body = {**summary(ledger, budget), **nist(entries), "releases": rows_of(entries, ledger.budget.delta)}
    write_atomic(out, json.dumps(body, indent=2).encode())
    typer.echo(f"written: {out}")
