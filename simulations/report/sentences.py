"""The result in sentences, made from the numbers: also where the federated model loses or nothing can be told."""

from typing import Any

from simulations.report import words
from simulations.results import ALL_SOURCES, FEDERATED, HELD_OUT_MEAN, WORST_SOURCE, Results

MOST_TARGETS = 3
"""Held-out sites told one by one; more are told by their mean."""


def sentences(results: Results) -> list[str]:
    """Tell the headline in paragraphs: held-out sites, source sites, each site against its own model."""
    targets = results.sites("held-out")
    places = targets if len(targets) <= MOST_TARGETS else [HELD_OUT_MEAN]
    told = [_place(results, place) for place in places]
    if not targets:
        told.append("No site was held out, so this run says nothing about a hospital that never trained.")
    told += [_sources(results), _at_home(results)]
    return [paragraph for paragraph in told if paragraph]


def verdicts(results: Results, site: str) -> dict[str, list[dict[str, Any]]]:
    """Sort a site's differences by what their intervals allow to say: better, worse, undecided."""
    sign = 1 if words.higher_is_better(results.primary) else -1
    sorted_: dict[str, list[dict[str, Any]]] = {"better": [], "worse": [], "undecided": []}
    for row in results.rows("differences", site=site, metric=results.primary, method=FEDERATED):
        low, high = sorted((sign * row["low"], sign * row["high"]))
        if low > 0:
            sorted_["better"].append(row)
        elif high < 0:
            sorted_["worse"].append(row)
        elif words.number(row["difference"]) != words.DASH:
            sorted_["undecided"].append(row)
    return sorted_


def _reached(results: Results, row: dict[str, Any]) -> str:
    decimals = min(2, words.digits(results.primary))
    ends = (words.number(row[end], decimals) for end in ("value", "low", "high"))
    value, low, high = ends
    return f"{value} ({low}–{high})" if words.DASH not in (low, high) else value


def _place(results: Results, site: str) -> str:
    rows = {row["method"]: row for row in results.rows("headline", site=site, metric=results.primary)}
    metric = words.title(results.primary)
    where = (
        "On average over the held-out sites" if site == HELD_OUT_MEAN else f"At {site}, which took no part in training"
    )
    ours = rows.pop(FEDERATED, None)
    if ours is None:
        return f"{where}, the federated model has not been judged."
    if words.number(ours["value"]) == words.DASH:
        return f"{where}, {metric} is {words.UNDEFINED}."
    others = [f"{name} {_reached(results, rows[name])}" for name in results.methods if name in rows]
    told = f"{where}, the federated model reached {metric} {_reached(results, ours)}, n = {ours['n']:,} images."
    if others:
        told += f" For comparison: {words.listed(others)}."
    return f"{told} {_verdict(results, site)}".strip()


def _verdict(results: Results, site: str) -> str:
    found = verdicts(results, site)

    def named(rows: list[dict[str, Any]]) -> str:
        return words.listed([f"{row['baseline']} ({_gap(row)})" for row in rows])

    told = ""
    if found["better"]:
        told += f"It was better than {named(found['better'])}. "
    if found["worse"]:
        told += f"It was worse than {named(found['worse'])}. "
    if found["undecided"]:
        told += (
            f"The paired interval includes zero against {named(found['undecided'])}: this run cannot tell them apart."
        )
    if not any(found.values()):
        told = "No paired comparison was made; overlapping intervals neither show nor exclude a difference."
    return told.strip()


def _gap(row: dict[str, Any]) -> str:
    decimals = words.digits(row["metric"])
    gap, low, high = (words.number(row[end], decimals, signed=True) for end in ("difference", "low", "high"))
    return f"{gap}; {low} to {high}"


def _sources(results: Results) -> str:
    mean = results.rows("headline", site=ALL_SOURCES, metric=results.primary, method=FEDERATED)
    worst = results.rows("headline", site=WORST_SOURCE, metric=results.primary, method=FEDERATED)
    if not mean or words.number(mean[0]["value"]) == words.DASH:
        return ""
    count = words.count(len(results.sites("source")), "site")
    told = f"Over the {count} that trained, its mean {words.title(results.primary)} was {_reached(results, mean[0])}"
    if worst and words.number(worst[0]["value"]) != words.DASH:
        told += f"; at the worst of them {_reached(results, worst[0])}"
    return f"{told}. {_verdict(results, ALL_SOURCES)}" if any(verdicts(results, ALL_SOURCES).values()) else f"{told}."


def _at_home(results: Results) -> str:
    """Count the sites whose own model is beaten, so that no site's loss hides in a mean."""
    counts = {"better": 0, "worse": 0, "undecided": 0}
    for site in results.sites("source"):
        for verdict, rows in verdicts(results, site).items():
            counts[verdict] += sum(row["baseline"] == "local only" for row in rows)
    total = sum(counts.values())
    if not total:
        return ""
    return (
        f"Against each site's own model, judged at home, the federated model was better at {counts['better']} of "
        f"{words.count(total, 'site')}, worse at {counts['worse']}, and undecided at {counts['undecided']}."
    )
