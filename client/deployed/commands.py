"""`consilium-site adaptation`: what was adapted at this site, and the one command that ends it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from common.commands import answering

commands = typer.Typer(no_args_is_help=True, help="What was adapted at this site, and the way back.")
Site = Annotated[Path, typer.Argument(help="The site's TOML.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Why = Annotated[str, typer.Option(help="Why, for the log; no patient.")]


@commands.command()
@answering
def log(site: Site, as_json: Json = False) -> None:
    """Show every session, rollback and release, after checking that the log is whole."""
    from client.deployed.governed import Log
    from client.site_settings import read_site_config

    own = read_site_config(site)
    found = Log(own)
    records = list(found)
    policy = own.adaptation
    body = {
        "site": own.name,
        "allowed": list(policy.methods) if policy else [],
        "locked": policy.locked if policy else None,
        "rolled_back": found.rolled_back,
        "head": found.head,
        "records": records,
    }
    if as_json:
        typer.echo(json.dumps(body))
        return
    for record in records:
        typer.echo(f"{record['at'][:19]}  {record['event']:<9} {_line(record)}")
    typer.echo(_state(body))


@commands.command()
@answering
def rollback(site: Site, why: Why = "") -> None:
    """Let the shipped model answer from now on, to the bit, whatever is asked for; checks that it is whole."""
    from client.deployed.governed import Log
    from client.deployed.shipped import open_shipped
    from client.site_settings import read_site_config

    own = read_site_config(site)
    Log(own).note("rollback", why=why)  # first: adaptation ends even if the shipped files need mending
    shipped = open_shipped(own)
    typer.echo(f"rolled back: the shipped model {shipped.artefact.model[:16]} answers, and no adaptation is let run.")


@commands.command()
@answering
def allow(site: Site, why: Why = "") -> None:
    """Lift a rollback: what the site's TOML allows may adapt again."""
    from client.deployed.governed import Log
    from client.site_settings import read_site_config

    own = read_site_config(site)
    found = Log(own)
    if not found.rolled_back:
        typer.echo("nothing to lift: adaptation is not rolled back.")
        return
    found.note("allow", why=why)
    typer.echo(f"lifted: {', '.join(own.adaptation.methods) if own.adaptation else 'no method'} may adapt again.")


def _line(record: dict[str, Any]) -> str:
    if record["event"] != "session":
        return str(record["why"])
    windows = record["windows"]
    alarms = sum(window["verdict"] == "alarm" for window in windows)
    actions = ", ".join(dict.fromkeys(window["action"] for window in windows)) or "no whole window"
    locked = " locked" if record["locked"] else ""
    return f"{record['method']}{locked}: {record['images']} images, {len(windows)} windows, {alarms} alarms: {actions}"


def _state(body: dict[str, Any]) -> str:
    if body["rolled_back"]:
        return f"Rolled back on {body['rolled_back'][:19]}: the shipped model answers."
    if not body["allowed"]:
        return "Adaptation is off: the site's TOML has no [adaptation]."
    how = "measure and flag, not adapt" if body["locked"] else "adapt"
    return f"{', '.join(body['allowed'])} may {how}. Log whole, head {body['head'][:16]}."
