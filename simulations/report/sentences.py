"""The result in sentences, made from the numbers: also where the federated model loses or nothing can be told."""

import math
from dataclasses import dataclass, field
from typing import Any

from simulations.report import words
from simulations.report.headline import comparable
from simulations.results import ALL_SOURCES, FEDERATED, HELD_OUT_MEAN, WORST_SOURCE, Results

MOST_TARGETS = 3
"""Held-out sites told one by one; more are told by their mean."""

SAID = {
    "better": "Better than",
    "worse": "Worse than",
    "undecided": "Not told apart from",
    "unpaired": "Without a paired comparison:",
}


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence, and below it what it compares with: (verdict, baselines in words)."""

    lead: str
    points: list[tuple[str, str]] = field(default_factory=list)


def sentences(results: Results) -> list[Told]:
    """Tell the headline: held-out sites, source sites, each site against its own model, each left out in turn."""
    targets = results.sites("held-out")
    places = targets if len(targets) <= MOST_TARGETS else [HELD_OUT_MEAN]
    told = [_place(results, place) for place in places]
    if not targets:
        told.append(Told("No site was held out, so no model was judged at a hospital that never trained along."))
    return [*told, *_sources(results), *_at_home(results)]


def verdict(row: dict[str, Any]) -> str:
    """Say what a difference's interval allows to say of the federated model: better, worse, undecided, unpaired."""
    sign = 1 if words.higher_is_better(row["metric"]) else -1
    low, high = sorted((sign * row["low"], sign * row["high"]))
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unpaired"
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def _place(results: Results, site: str) -> Told:
    metric = words.title(results.primary)
    mean = "On average over the held-out sites"
    where = mean if site == HELD_OUT_MEAN else f"At {site}, which took no part in training"
    ours = _ours(results, site)
    if ours is None:
        return Told(f"{where}, the federated model has not been judged.")
    if words.number(ours["value"]) == words.DASH:
        return Told(f"{where}, {metric} is {words.undefined(results.primary)}.")
    lead = f"{where}, the federated model reached {metric} {_reached(ours)}, n = {ours['n']:,} images."
    return Told(lead, _points(results, site))


def _sources(results: Results) -> list[Told]:
    mean, worst = _ours(results, ALL_SOURCES), _ours(results, WORST_SOURCE)
    if mean is None or words.number(mean["value"]) == words.DASH:
        return []
    count = words.count(len(results.sites("source")), "site")
    lead = f"Over the {count} that trained, its mean {words.title(results.primary)} was {_reached(mean)}"
    if worst is not None and words.number(worst["value"]) != words.DASH:
        lead += f"; at the worst of them, {_reached(worst)}"
    return [Told(f"{lead}.", _points(results, ALL_SOURCES))]


def _at_home(results: Results) -> list[Told]:
    """Count the sites whose own model is beaten, and tell of sites left out, so that no loss hides in a mean."""
    rows = results.rows("differences", metric=results.primary, method=FEDERATED, baseline="local only")
    verdicts = [verdict(row) for row in rows if row["site"] in results.sites("source")]
    told = []
    if verdicts:
        counted = {one: verdicts.count(one) for one in ("better", "worse", "undecided")}
        told.append(
            Told(
                f"Against each site's own model, judged at home, the federated model was better at {counted['better']} "
                f"of {words.count(len(verdicts), 'site')}, worse at {counted['worse']}, not told apart at "
                f"{counted['undecided']}."
            )
        )
    out = results.rows("headline", metric=results.primary, method="leave one site out", site=HELD_OUT_MEAN)
    if out and words.number(out[0]["value"]) != words.DASH:
        told.append(
            Told(
                f"Each source site left out of training in turn and judged by a federation that never saw it: mean "
                f"{words.title(results.primary)} {_reached(out[0])}."
            )
        )
    return told


def _points(results: Results, site: str) -> list[tuple[str, str]]:
    """Group the other methods at a place by what can be said of them."""
    rows = {row["method"]: row for row in comparable(results.rows("headline", site=site, metric=results.primary))}
    paired = results.rows("differences", site=site, metric=results.primary, method=FEDERATED)
    gaps = {row["baseline"]: row for row in paired}
    groups: dict[str, list[str]] = {name: [] for name in SAID}
    for name in results.methods:
        if name == FEDERATED or name not in rows or words.number(rows[name]["value"]) == words.DASH:
            continue
        said = verdict(gaps[name]) if name in gaps else "unpaired"
        gap = "" if said == "unpaired" else f"; difference {_gap(gaps[name])}"
        groups[said].append(f"{name} {_reached(rows[name], gap)}")
    return [(SAID[name], f"{words.listed(group)}.") for name, group in groups.items() if group]


def _ours(results: Results, site: str) -> dict[str, Any] | None:
    rows = results.rows("headline", site=site, metric=results.primary, method=FEDERATED)
    return rows[0] if rows else None


def _reached(row: dict[str, Any], more: str = "") -> str:
    decimals = min(2, words.digits(row["metric"]))
    value, low, high = (words.number(row[end], decimals) for end in ("value", "low", "high"))
    interval = f"{low}–{high}" if words.DASH not in (low, high) else "no interval"
    return f"{value} ({interval}{more})"


def _gap(row: dict[str, Any]) -> str:
    decimals = words.digits(row["metric"])
    gap, low, high = (words.number(row[end], decimals, signed=True) for end in ("difference", "low", "high"))
    return f"{gap}, {low} to {high}"
