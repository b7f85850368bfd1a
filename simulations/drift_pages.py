"""What `consilium study drift` shows: what each new site resembles, how far the atlas can be trusted, and its file."""

from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from common.shift.drift_atlas import save_atlas
from simulations.drift import Drift
from simulations.findings import Rows, print_json, write_findings
from simulations.report import words
from simulations.report.drift import draw_confusion, draw_likeness
from simulations.report.sections import privacy_text

ATLAS = "atlas.safetensors"


def show_drift(found: Drift, out: Path, as_json: bool) -> None:
    """Write the atlas, tables and pictures under `out` and print what was found."""
    tables: dict[str, Rows] = {"sites": found.sites} if found.sites else {}
    pictures: dict[str, Figure] = {"alike": draw_likeness(found.atlas)}
    if found.trials:
        tables |= {"trials": found.trials.rows, "shares": [found.trials.shares()], "alarms": found.alarms}
        pictures["confusion"] = draw_confusion(found)
    write_findings(out, tables, pictures)
    if found.trials:
        save_atlas(found.atlas, out / ATLAS)
    if as_json:
        print_json(
            {
                "run": str(found.run),
                "out": str(out),
                "privacy": found.privacy,
                "modality": found.modality,
                "seed": found.seed,
                "corruptions": list(found.atlas.names),
                "least_cosine": found.atlas.least_cosine,
                "sites": found.sites,
                "shares": found.trials.shares() if found.trials else {},
                "alarms": found.alarms,
                "notes": found.notes,
            }
        )
        return
    _print(found, out, Console())


def _print(found: Drift, out: Path, console: Console) -> None:
    if found.trials:
        console.print(_trusted(found), soft_wrap=True)
    if found.sites:
        table = Table(title="What new sites show", box=None)
        for name in ("site", "patients", "what it is like", "in resamples", "along", "clean", "mixture"):
            table.add_column(
                name, justify="right" if name in ("patients", "in resamples", "along", "clean") else "left"
            )
        for row in found.sites:
            numbers = (words.number(row[key], 2) for key in ("support", "along", "threshold"))
            table.add_row(row["site"], str(row["patients"]), row["said"], *numbers, row["mixture"])
        console.print(table)
        console.print(
            "in resamples: how often the patients, drawn anew, point at the same corruption. along: how far the site "
            "lies along it; clean: how far clean windows of so many patients get, one in twenty. A resemblance of "
            "attention is no proof of a cause.",
            soft_wrap=True,
        )
    for note in found.notes:
        console.print(f"Note: {note}.", soft_wrap=True)
    console.print(privacy_text(found.privacy), style="bold")
    if found.trials:
        console.print("The atlas holds means over patients without noise, no image.", soft_wrap=True)
    console.print(str(out), soft_wrap=True)


def _trusted(found: Drift) -> str:
    assert found.trials is not None
    shares = found.trials.shares()
    alarms = ", ".join(f"{row['site']} {_percent(row['told_drift'])}" for row in found.alarms)
    return (
        f"{len(found.atlas.names)} corruptions in five severities, asked of patients it was not learnt on "
        f"({words.count(shares['trials'], 'trial')}): {_percent(shares['right'])} named right, "
        f"{_percent(shares['right_family'])} by family; of the named {_percent(shares['precision'])} are right, "
        f"{_percent(shares['precision_family'])} by family; severity off by "
        f"{words.number(shares['severity_error'], 2)}. Corruptions it has never seen: "
        f"{_percent(shares['unknown_unnamed'])} left unnamed, {_percent(shares['unknown_family'])} given a relative, "
        f"{_percent(shares['unknown_wrong'])} named wrongly. "
        f"Clean windows told a drift by an atlas without their site: {alarms}."
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share == share else words.DASH
