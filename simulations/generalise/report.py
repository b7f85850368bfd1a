"""The page of a benchmark: the answer in words, every method at every site, and what a choice or a scale changed."""

import math
from collections.abc import Iterable
from typing import Any

from simulations.generalise.conduct import Generalised
from simulations.generalise.rows import Row
from simulations.report import words
from simulations.report.forest import draw_forest
from simulations.report.markup import Html, join, table, tag
from simulations.report.page import Section, page
from simulations.report.sections import privacy
from simulations.report.svg import inline, svg_text

JUDGED = {
    "leave-one-site-out": "Every site was left out once and judged, with all its images, the models that never saw it.",
    "held-out": "Sites that never trained judged, with all their images.",
    "in-federation": "Every site judged with its own test images, and its personal parts where a method has them.",
    "site-by-site": "Every site trained alone; all others judged with all their images, it with its test images.",
}


def benchmark_page(found: Generalised) -> str:
    """Write the page; it stands alone."""
    record = found.record
    sections = [
        Section("words", "The answer in words", _in_words(found)),
        Section("forest", f"Against {record['reference']}", _forest(found)),
        Section("methods", "All methods", join(_by_metric(found, _levels))),
        Section("sites", "Site by site", join(_by_metric(found, _sites))),
    ]
    if found.tables["gain"]:
        sections.append(Section("gain", "What a site gains over its own model", _gain(found)))
    if found.tables["calibration"]:
        sections.append(Section("calibration", "Calibration", _calibration(found)))
    if found.tables["selection"]:
        sections.append(Section("selection", "What was chosen, and how", _selection(found)))
    sections.append(Section("how", "How it was run", _how(found)))
    footer = (
        f"Consilium {record['code'].get('version', '')}. Settings {record['config_digest'][:12]}, data "
        f"{record['data']['digest'][:12]}, code {record['code'].get('digest', '')[:12]}. The page stands alone. A "
        f"research result, not for diagnosis."
    )
    return page(record["title"] or record["name"], _header(found), sections, footer)


def _header(found: Generalised) -> Html:
    record = found.record
    sites = record["data"]["sites"]
    facts = [
        ("Protocol", record["protocol"].replace("-", " "), ""),
        ("Sites", str(len({row["site"] for row in found.tables["sites"]})), "judged"),
        ("Patients", f"{sum(site[part]['patients'] for site in sites for part in ('train', 'val', 'test')):,}", ""),
        ("Task", record["config"]["task.name"], f"judged by {words.title(record['metrics'][0])}"),
        ("Model", record["config"]["model.name"], f"{record['config']['rounds']} rounds"),
        ("Seeds", str(len(record["seeds"])), ""),
    ]
    return tag(
        "header",
        tag("p", "Consilium · does it work at a hospital it has never seen?", class_="kicker"),
        tag("h1", record["title"] or record["name"]),
        tag("p", JUDGED[record["protocol"]], class_="subtitle"),
        tag("dl", *(tag("div", tag("dt", a), tag("dd", b, tag("small", c))) for a, b, c in facts), class_="facts"),
        privacy(record["privacy"]),
    )


def _in_words(found: Generalised) -> Html:
    """Say which method is best, which falls least, and what the baselines say, also where they win."""
    rows, better = _summary(found), words.higher_is_better(_metric(found))
    reference = next(row for row in rows if row["method"] == found.record["reference"])
    told = [
        tag(
            "p",
            f"{reference['method']} reaches {_ends(reference, 'mean')} on average over the judged sites and "
            f"{_ends(reference, 'worst')} at the worst of them ({reference['worst_site']}).",
        )
    ]
    for kind, heading in (("method", "Methods"), ("baseline", "Baselines")):
        points = []
        for row in rows:
            if row["kind"] == kind and row is not reference:
                said = [_told(row, name, better) for name in ("mean", "worst")]
                points.append(
                    tag("li", tag("strong", row["method"]), f": {said[0]} on average, {said[1]} at the worst site.")
                )
        told += [tag("h3", heading), tag("ul", *points)] if points else []
    seeds = len(found.record["seeds"])
    note = (
        f"In brackets: 95 % interval, {words.resampled(seeds)}, each patient with all images. Differences are "
        f"paired; not told apart: the interval includes zero. The worst site is the worst in each resample. A handful "
        f"of sites supports no claim about hospitals in general."
    )
    return join([tag("div", *told, class_="words"), tag("p", note, class_="note")])


def _told(row: Row, name: str, better: bool) -> str:
    value, low, high = (row[f"d_{name}{end}"] for end in ("", "_low", "_high"))
    if not math.isfinite(low):
        return "undefined"
    if low <= 0 <= high:
        return f"not told apart ({low:+.3f} to {high:+.3f})"
    return f"{'better' if (value > 0) == better else 'worse'} by {abs(value):.3f} ({low:+.3f} to {high:+.3f})"


def _forest(found: Generalised) -> Html:
    metric, reference = _metric(found), found.record["reference"]
    caption = (
        f"{words.title(metric)} of each method and baseline (shaded) minus {reference}; lines: paired 95 % intervals "
        f"over patients and seeds. Blue, diamond: better; red, triangle: worse; grey: not told apart. n: images."
    )
    drawn = inline(svg_text(draw_forest(found)), "forest", f"Forest plot of differences from {reference}")
    return tag("figure", Html(drawn), tag("figcaption", caption))


def _by_metric(found: Generalised, make: Any) -> Iterable[Html]:
    """Show the primary metric open, the others to be opened."""
    first, *others = found.record["metrics"]
    yield make(found, first)
    for metric in others:
        yield tag("details", tag("summary", words.title(metric)), make(found, metric))


def _levels(found: Generalised, metric: str) -> Html:
    rows = [row for row in found.tables["summary"] if row["metric"] == metric]
    head: list[object] = [
        "method",
        "mean",
        "worst",
        "worst at",
        "spread of sites",
        "regret",
        "p of mean, Holm",
        "p of worst, Holm",
    ]
    body = [
        [
            row["method"],
            _ends(row, "mean"),
            _ends(row, "worst"),
            row["worst_site"] or words.DASH,
            *(words.number(row[name]) for name in ("sd_sites", "regret", "d_mean_p_holm", "d_worst_p_holm")),
        ]
        for row in rows
    ]
    return table(head, body, words.direction(metric))


def _sites(found: Generalised, metric: str) -> Html:
    rows = [row for row in found.tables["sites"] if row["metric"] == metric]
    places = list(dict.fromkeys((row["fold"], row["site"]) for row in rows))
    several = len({site for _, site in places}) < len(places)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    by_place = {(row["method"], row["fold"], row["site"]): row for row in rows}
    head: list[object] = ["site", "n", *methods]
    body = []
    for fold, site in places:
        mine = [by_place[method, fold, site] for method in methods]
        name = f"{fold} → {site}" if several else site
        body.append([name, f"{mine[0]['n']:,}", *map(words.interval, mine)])
    return table(head, body, words.direction(metric))


def _gain(found: Generalised) -> Html:
    metric = _metric(found)
    rows = [row for row in found.tables["gain"] if row["metric"] == metric]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    places = list(dict.fromkeys((row["fold"], row["site"]) for row in rows))
    by_place = {(row["method"], row["fold"], row["site"]): row for row in rows}
    body = []
    for fold, site in places:
        mine = [by_place[method, fold, site] for method in methods]
        cells = (_minus(one) for one in mine)
        body.append([site, words.number(mine[0]["own"]), f"{mine[0]['n']:,}", *cells])
    caption = (
        f"{words.title(metric)} minus that of the site's own model, on the site's test images. Below zero the site is "
        f"better served by what it trains alone."
    )
    return table(["site", "its own model", "n", *methods], body, caption)


def _calibration(found: Generalised) -> Html:
    body = [
        [
            row["method"],
            row["site"],
            f"{row['temperature']:.2f}",
            *map(words.number, (row["ece"], row["ece_scaled"])),
            _minus(row),
        ]
        for row in found.tables["calibration"]
    ]
    caption = (
        "Expected calibration error before and after one temperature, found on the source sites' validation images by "
        "sums that add across sites. Below zero is better."
    )
    return table(["method", "site", "temperature", "ECE", "scaled", "difference"], body, caption)


def _selection(found: Generalised) -> Html:
    body: list[list[object]] = [
        [
            *(row[name] for name in ("method", "fold", "candidate")),
            words.number(row["source_validation"]),
            "chosen" if row["chosen"] else "",
            words.number(row["judged"]),
            "best there" if row["oracle"] else "",
        ]
        for row in found.tables["selection"]
    ]
    caption = (
        f"{found.record['selection']}. The last two columns show what nobody could have known: the judged sites' own "
        f"view."
    )
    return table(["method", "fold", "candidate", "source validation", "", "judged", "oracle"], body, caption)


def _how(found: Generalised) -> Html:
    config = sorted(found.record["config"].items())
    pairs = table(
        ["setting", "value"],
        [[key, str(value)] for key, value in config],
        "Settings of the baselines and the reference's base",
    )
    made = f"Begun {found.record['created'][:16].replace('T', ' ')} UTC. Tables: tables/*.csv beside this page."
    return join([tag("p", made), tag("details", tag("summary", "All settings"), pairs)])


def _metric(found: Generalised) -> str:
    return str(found.record["metrics"][0])


def _summary(found: Generalised) -> list[Row]:
    return [row for row in found.tables["summary"] if row["metric"] == _metric(found)]


def _ends(row: Row, name: str) -> str:
    return words.interval({"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]})


def _minus(row: Row) -> str:
    return words.interval(row, value="difference")
