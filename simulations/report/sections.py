"""The sections of one run's report, each a pure function of its results."""

from importlib import import_module
from typing import Any

from simulations.report import FIGURES, words
from simulations.report.headline import LEAVE_ONE_SITE_OUT, best_value, held_out, places
from simulations.report.markup import Html, join, table, tag
from simulations.report.page import Section
from simulations.report.sentences import sentences
from simulations.report.svg import inline
from simulations.results import HELD_OUT_MEAN, SUMMARIES, Results
from simulations.tables import TABLES

MOST_ROWS = 150
"""A longer table is linked, not printed."""

PRIVACY = {
    "none": "Privacy mechanism: none. Updates and signatures were released in the clear.",
    "none, summed securely": "Privacy mechanism: none, summed securely. The server saw sums only, and "
    "nothing hides a patient in them.",
}


def header(results: Results) -> Html:
    """Title, what was run in figures, and the privacy banner."""
    record = results.record
    sites = record["data"]["sites"]
    held = len(results.sites("held-out"))
    total = {unit: sum(site[part][unit] for site in sites for part in ("train", "val", "test"))
             for unit in ("patients", "images")}  # fmt: skip
    facts = [
        ("Sites", f"{len(sites)}", f"{held} held out"),
        ("Patients", f"{total['patients']:,}", "no patient in two parts"),
        ("Images", f"{total['images']:,}", record["data"]["name"]),
        ("Task", record["task"], f"judged by {words.title(results.primary)}"),
        ("Model", record["config"].get("model.name", words.DASH), record["config"].get("strategy.name", "")),
        ("Rounds", record["config"].get("rounds", words.DASH), words.count(len(record["seeds"]), "seed")),
    ]
    return tag(
        "header",
        tag("p", "Consilium · report of a federated run", class_="kicker"),
        tag("h1", record["name"]),
        tag("p", record["config"]["title"], class_="subtitle") if record["config"].get("title") else "",
        tag("p", f"Run {record['run']}, finished {record['finished'][:16].replace('T', ' ')} UTC", class_="byline"),
        tag("dl", *(tag("div", tag("dt", a), tag("dd", b, tag("small", c))) for a, b, c in facts), class_="facts"),
        privacy(record["privacy"]),
        _pictures(results),
    )


def _pictures(results: Results) -> Html:
    """Say aloud that the page shows patients' images, and under which licence: it may be passed on no further."""
    if not results.overlays:
        return Html("")
    many = words.count(len(results.overlays), "test image")
    licence = results.record["data"]["licence"]
    terms = f"their licence: {licence}." if licence else "no licence is given; ask their owner before passing it on."
    start = tag("strong", "This page and its folder hold pictures.")
    return tag(
        "p",
        start,
        f" {many} with the expert's label or outline; no name is attached, nor is one searched in the pixels; {terms}",
        class_="privacy",
        role="note",
    )


def privacy_text(mechanism: str) -> str:
    """What protects the patients, in a sentence."""
    return PRIVACY.get(mechanism, f"Privacy mechanism: {mechanism}.")


def privacy(mechanism: str) -> Html:
    """Say aloud what protects the patients."""
    first, _, rest = privacy_text(mechanism).partition(". ")
    return tag("p", tag("strong", f"{first.rstrip('.')}."), f" {rest}", class_="privacy", role="note")


def in_words(results: Results) -> Section:
    """The headline as sentences."""
    told: list[Html] = []
    for one in sentences(results):
        told.append(tag("p", one.lead))
        if one.points:
            told.append(tag("ul", *(tag("li", tag("strong", said), " ", what) for said, what in one.points)))
    seeds = len(results.record["seeds"])
    chance = "" if seeds > 1 else " One seed: training's own chance is not in the intervals."
    note = (
        f"In brackets: 95 % interval, {words.resampled(seeds)}, each patient with all images. Differences are paired; "
        f"not told apart: the interval includes zero. Intervals are percentiles of the resamples: resampling itself "
        f"shifts the calibration error and the worst site, so that their value can lie at an end or outside.{chance} "
        f"A handful of sites supports no claim about hospitals in general."
    )
    return Section(
        "words", "The result in words", join([tag("div", *told, class_="words"), tag("p", note, class_="note")])
    )


def result_tables(results: Results) -> Section:
    """The headline table of every metric, the primary one open."""
    first, *others = results.record["metrics"]
    parts = [headline_table(results, first)]
    parts += [tag("details", tag("summary", words.title(name)), headline_table(results, name)) for name in others]
    meanings = [tag("li", tag("b", name), f": {meaning}") for name, meaning in results.record["methods"].items()]
    parts += [tag("h3", "The methods"), tag("ul", *meanings, class_="note")]
    return Section("tables", "All methods, all sites", join(parts))


def headline_table(results: Results, metric: str) -> Html:
    """One metric: a row per site, a column per method, the best of each row named so."""
    rows = results.rows("headline", metric=metric)
    methods = [name for name in results.methods if any(row["method"] == name for row in rows)]
    body, undefined = [], False
    for site in places(results):
        cells = {row["method"]: row for row in rows if row["site"] == site}
        if not cells:
            continue
        best = best_value(list(cells.values()), metric)
        undefined = undefined or any(words.number(row["value"]) == words.DASH for row in cells.values())
        kind = "held-out" if held_out(results, site) else "summary" if site in SUMMARIES else None
        name = [
            site,
            tag("small", f"held out, n = {_most(cells):,}" if kind == "held-out" else f"n = {_most(cells):,}"),
        ]
        line = [tag("td", _cell(cells.get(method), metric, best)) for method in methods]
        body.append(tag("tr", tag("th", *name, scope="row"), *line, class_=kind))
    head = tag("tr", tag("th", "Judged at", scope="col"), *(tag("th", name, scope="col") for name in methods))
    caption = _table_caption(rows, metric, undefined)
    whole = tag("table", tag("thead", head), tag("tbody", *body), class_="headline", aria_label=words.title(metric))
    return join([tag("p", caption, class_="note"), tag("div", whole, class_="scroll", tabindex="0")])


def _table_caption(rows: list[dict[str, Any]], metric: str, undefined: bool) -> str:
    seeds = max((row["seeds"] for row in rows), default=1)
    spread = [row["seed_sd"] for row in rows if words.number(row["seed_sd"]) != words.DASH]
    caption = (
        f"{words.direction(metric)}; below each value its 95 % interval, {words.resampled(seeds)}; n: images. The best "
        f"of a row is bold and marked, which does not mean that it differs from the next."
    )
    if spread:
        decimals = words.digits(metric)
        ends = f"{words.number(min(spread), decimals)} to {words.number(max(spread), decimals)}"
        caption += f" Standard deviation over {seeds} seeds: {ends}."
    if any(row["method"] == LEAVE_ONE_SITE_OUT and row["site"] == HELD_OUT_MEAN for row in rows):
        caption += " Leave one site out has its held-out mean over the source sites, each left out in turn."
    return f"{caption} {words.DASH} {words.undefined(metric)}." if undefined else caption


def _most(cells: dict[str, dict[str, Any]]) -> int:
    return max(int(row["n"]) for row in cells.values())


def _cell(row: dict[str, Any] | None, metric: str, best: float) -> Html:
    if row is None:
        return tag("small", "does not apply")
    decimals = words.digits(metric)
    shown = words.number(row["value"], decimals)
    if shown == words.DASH:
        return tag("abbr", words.DASH, title=words.undefined(metric))
    ends = [words.number(row[end], decimals) for end in ("low", "high")]
    below = "–".join(ends) if words.DASH not in ends else "no interval"
    value = join([tag("b", shown), tag("span", "best", class_="best")]) if row["value"] == best else Html(shown)
    return join([value, tag("small", below)])


def figure(results: Results, name: str, svg: str, position: int) -> Section:
    """One figure with its number, caption and, folded, the numbers behind it."""
    module = import_module(FIGURES[name].partition(":")[0])
    caption = module.describe(results)
    picture = tag("div", Html(inline(svg, name, f"{module.TITLE}. {caption}")), class_="scroll", tabindex="0")
    files = [tag("a", kind.upper(), href=f"figures/{name}.{kind}") for kind in ("svg", "png")]
    below = tag("figcaption", tag("strong", f"Figure {position}. "), caption, " As ", join(files, " or "), ".")
    study = getattr(module, "STUDY", "")
    behind = study_numbers(results, study, module.COLUMNS) if study else numbers(results, module.TABLE)
    return Section(name, module.TITLE, join([tag("figure", picture, below), behind]))


def numbers(results: Results, name: str) -> Html:
    """The table behind a figure, folded, with its file."""
    if not name:
        return Html("")
    rows = results.rows(name)
    link = tag("a", f"tables/{name}.csv", href=f"tables/{name}.csv")
    if not rows:
        return Html("")  # the figure says so
    units = [f"{column.name}" for column in TABLES[name]]
    shown = table(
        list(units),
        ([_plain(row[column]) for column in row] for row in rows[:MOST_ROWS]),
        join([words.count(min(len(rows), MOST_ROWS), "row"), f" of {len(rows):,}; all in ", link, "."]),
    )
    return tag("details", tag("summary", "The numbers behind this figure"), shown, class_="numbers")


def study_numbers(results: Results, study: str, columns: tuple[str, ...]) -> Html:
    """The rows of a study that was made after the run, folded, with their file."""
    rows = results.studies.get(study, {}).get("summary", [])
    link = tag("a", f"{study}/summary.csv", href=f"{study}/summary.csv")
    more = tag("a", f"{study}/rows.csv", href=f"{study}/rows.csv")
    below = join([words.count(len(rows), "row"), "; with everything else in ", link, " and ", more, "."])
    shown = table(list(columns), ([_plain(row[column]) for column in columns] for row in rows), below)
    return tag("details", tag("summary", "The numbers behind this figure"), shown, class_="numbers")


def _plain(value: object) -> str:
    return words.number(value, 4) if isinstance(value, float | None) else str(value)
