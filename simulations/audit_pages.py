"""What `consilium privacy audit` shows: lines in the terminal, findings as CSV, and a page."""

import math
from pathlib import Path

from rich.console import Console

from simulations.findings import print_json, write_table
from simulations.privacy_audit import Audited
from simulations.report.markup import join, table, tag
from simulations.report.page import Section, page
from simulations.report.sections import privacy
from simulations.results import write_whole, writing

VERDICTS = {
    "within": "within the claim",
    "undecided": "above it, interval not",
    "exceeds": "BEYOND THE CLAIM",
    "no-bound": "nothing claimed",
}
HEAD = ["attack", "measure", "success", "95 % interval", "without the release", "claim allows", "of", "verdict"]


def show_audit(found: Audited, out: Path, as_json: bool) -> bool:
    """Write findings.csv and audit.html under `out`, print them, and tell whether any goes beyond the claim.

    Raises:
        RunFolderError: The folder cannot be written.
    """
    rows = [finding.row() for finding in found.findings]
    write_table(out / "findings.csv", rows)
    with writing(out):
        write_whole(out / "audit.html", _page(found).encode())
    caught = any(finding.verdict == "exceeds" for finding in found.findings)
    if as_json:
        head = {"run": found.run, "out": str(out), "protection": found.protection, "epsilon": found.claim.epsilon}
        more = {"delta": found.claim.delta, "noise_multiplier": found.noise_multiplier, "patients": found.patients}
        print_json({**head, **more, "beyond_claim": caught, "findings": rows})
        return caught
    console = Console(highlight=False)
    console.print(_claimed(found), style="bold")
    for finding, cells in zip(found.findings, _cells(found), strict=True):
        name, measure, success, interval, baseline, allowed, of, verdict = cells
        console.print(f"\n{name}: {measure}", style="bold red" if finding.verdict == "exceeds" else "bold")
        console.print(
            f"  {success} ({interval}), of {of}; without the release {baseline}, claim allows {allowed}: {verdict}"
        )
    console.print(f"\n{_verdict(found)}\n{out / 'audit.html'}", soft_wrap=True)
    return caught


def _page(found: Audited) -> str:
    title = f"Attacked: {found.run}"
    header = tag("header", tag("h1", title), tag("p", _claimed(found), class_="byline"), privacy(found.protection))
    told = join([tag("p", _verdict(found)), table([*HEAD], [[*cells] for cells in _cells(found)])])
    means = tag(
        "p",
        "Success is larger where patients are worse off. Staying within the claim proves nothing about stronger "
        "attacks: only the mechanism's proof does. Going beyond it proves that the claim is false. One of forty sound "
        "rows lies beyond its claim by chance.",
    )
    sections = [Section("findings", "What the attacks reached", told), Section("means", "How to read it", means)]
    return page(
        title, header, sections, "Consilium. Attacks on data of the run's own sites; this page holds no patient."
    )


def _claimed(found: Audited) -> str:
    if found.claim.nothing:
        return f"{found.patients} patients, no privacy claimed."
    return (
        f"{found.patients} patients, noise multiplier {found.noise_multiplier:.4g}; the training claims epsilon "
        f"{found.claim.epsilon:.3g} at delta {found.claim.delta:g}."
    )


def _verdict(found: Audited) -> str:
    beyond = [finding.name for finding in found.findings if finding.verdict == "exceeds"]
    if found.claim.nothing:
        return "Nothing is claimed, so nothing can be broken: the figures show what anybody can learn."
    if beyond:
        return f"The claim is false, or one in forty rows misled: {', '.join(dict.fromkeys(beyond))} went beyond it."
    return "No attack went beyond the claim."


def _cells(found: Audited) -> list[list[str]]:
    return [
        [
            finding.name,
            finding.measure,
            _number(finding.success),
            f"{_number(finding.interval[0])} to {_number(finding.interval[1])}",
            _number(finding.baseline),
            _number(finding.claimed_bound),
            str(finding.samples),
            VERDICTS[finding.verdict],
        ]
        for finding in found.findings
    ]


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ("∞" if value > 0 else "–")
