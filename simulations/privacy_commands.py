"""`consilium privacy`: plan a run's privacy before it begins, and attack a run after it has ended."""

import json
from pathlib import Path
from typing import Annotated

import typer

from common.commands import answering

commands = typer.Typer(no_args_is_help=True, help="Plan a run's privacy, and try to break a finished run's.")
CANARIES = 500
"""Patients made up to be found again; all of 500 would show an epsilon of 4.7."""
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@commands.command()
@answering
def plan(
    experiment: Annotated[str, typer.Argument(help="A TOML file, or an embedded experiment.")] = "privacy-phantom",
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: key=value.")] = None,
    patients: Annotated[int, typer.Option(min=1, help="Training patients of one site.")] = 200,
    out: Annotated[Path | None, typer.Option(help="Folder for plan.csv, curve.csv and plan.png.")] = None,
    as_json: Json = False,
) -> None:
    """How much noise do so many rounds need at this epsilon, and how many rounds does it afford?

    Example: `consilium privacy plan --set privacy.epsilon=3 --set rounds=40 --patients 400 --out plan`
    """
    from dataclasses import asdict

    from simulations.experiment import load_experiment
    from simulations.privacy_plan import plan_run

    base = ["privacy.mechanism=gaussian", "privacy.placement=site"]
    config = load_experiment(experiment, [*base, *(changes or [])]).config
    found = plan_run(config, patients)
    if out:
        from simulations.findings import write_findings
        from simulations.report.budget import draw_budget

        write_findings(out, {"plan": found.table, "curve": found.curve}, {"plan": draw_budget(found)})
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(
        f"{config.rounds} rounds at epsilon {config.privacy.epsilon:g}: noise multiplier {found.noise_multiplier:.4g}, "
        f"which costs {found.epsilon:.4g} and affords {found.rounds_affordable} rounds.\n"
    )
    typer.echo(f"{'epsilon':>8} {'noise multiplier':>17} {'noise of a step':>16} {'patients for a tenth':>21}")
    for row in found.table:
        typer.echo(
            f"{row['epsilon']:>8g} {row['noise_multiplier']:>17.4g} {row['noise_of_a_step']:>16.4g} "
            f"{row['patients_for_a_tenth']:>21,}"
        )
    typer.echo(
        "\nNoise of a step: standard deviation on each entry of the mean gradient; its length is at most the clip norm."
        "\nPatients for a tenth: how many a site needs for that noise to be a tenth of the clip norm."
    )
    typer.echo(f"\n{found.statement}")


@commands.command()
@answering
def audit(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder; by default RUN/audit.")] = None,
    patients: Annotated[int, typer.Option(min=20, help="At most so many patients, of all source sites.")] = 120,
    shadows: Annotated[int, typer.Option(min=2, help="Models trained to learn what membership looks like.")] = 16,
    broken: Annotated[
        float, typer.Option(min=1, help="Divide the noise and tell nobody: the audit must catch it.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Attack a run: canaries, membership, gradient inversion, released signatures and maps, beside what it claims.

    Ends with exit code 5 when an attack goes beyond the claim. Takes minutes: every shadow model is a training.
    """
    from simulations.attacks.suite import Effort
    from simulations.audit_pages import show_audit
    from simulations.privacy_audit import audit_run
    from simulations.workers import default_workers

    effort = Effort(canaries=CANARIES, shadows=shadows, workers=default_workers())
    typer.echo(f"training {shadows} shadow models, a target and the canaries' model …", err=True)
    found = audit_run(run, effort, patients, 1, broken)
    if show_audit(found, out or run / "audit", as_json):
        raise typer.Exit(5)
