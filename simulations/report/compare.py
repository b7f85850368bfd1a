"""Build the page that puts several runs side by side: results aligned, differences marked, settings that differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from simulations.report import comparison, words
from simulations.report.headline import held_out
from simulations.report.markup import Html, join, safe, table, tag
from simulations.report.page import Section, page
from simulations.report.sections import privacy
from simulations.report.svg import inline, png_bytes, svg_text
from simulations.results import FEDERATED, Results, write_whole, writing


def compare_report(runs: Sequence[Results], folder: Path) -> Path:
    """Write `comparison.html` and its figure into a folder; give the page's path.

    Raises:
        ConfigError: Fewer than two runs, or no metric that all of them have.
        RunFolderError: The folder cannot be written.
    """
    if len(runs) < 2:
        raise ConfigError(f"{len(runs)} run is given. A comparison needs two or more; name their folders.")
    metrics = [name for name in runs[0].record["metrics"] if all(name in run.record["metrics"] for run in runs)]
    if not metrics:
        told = "; ".join(f"{label}: {', '.join(run.record['metrics'])}" for label, run in _labelled(runs))
        raise ConfigError(f"the runs share no metric ({told}). Compare runs of one task.")
    drawn = comparison.draw(runs, metrics[0])
    svg = svg_text(drawn)
    sections = [_headline(runs, metrics), _figure(runs, svg, metrics[0]), _methods(runs, metrics[0]), _settings(runs)]
    title = f"Comparison of {words.count(len(runs), 'run')}"
    content = page(
        title,
        _header(runs, title),
        sections,
        "Consilium. This page stands alone. A research result, not for diagnosis.",
    )
    with writing(folder):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        write_whole(folder / "figures" / "comparison.svg", svg.encode())
        write_whole(folder / "figures" / "comparison.png", png_bytes(drawn))
        write_whole(folder / "comparison.html", content.encode())
    return folder / "comparison.html"


def cautions(runs: Sequence[Results]) -> list[str]:
    """Say what keeps the runs from being compared like with like."""
    found = []
    kinds = (("digest", "The data differ"), ("split_digest", "The division into train, validation and test differs"))
    for key, words_ in kinds:
        if len({run.record["data"][key] for run in runs}) > 1:
            found.append(f"{words_}: the runs were not judged on the same images.")
            break
    if len({run.record["code"].get("digest") for run in runs}) > 1:
        found.append("The code differs between the runs.")
    if len({len(run.record["seeds"]) for run in runs}) > 1:
        found.append("The runs have different numbers of seeds, so their intervals do not cover the same chance.")
    return found


def differing(runs: Sequence[Results]) -> list[str]:
    """Name the settings that are not the same in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run.record["config"])
    return [key for key in keys if len({repr(run.record["config"].get(key)) for run in runs}) > 1]


def _labelled(runs: Sequence[Results]) -> list[tuple[str, Results]]:
    return list(zip(comparison.labels(runs), runs, strict=True))


def _header(runs: Sequence[Results], title: str) -> Html:
    names = " · ".join(comparison.labels(runs))
    mechanisms = dict.fromkeys(run.record["privacy"] for run in runs)
    warned = [tag("p", tag("strong", "Caution. "), caution, class_="caution") for caution in cautions(runs)]
    return tag(
        "header",
        tag("p", "Consilium · comparison", class_="kicker"),
        tag("h1", title),
        tag("p", names, class_="byline"),
        *(privacy(mechanism) for mechanism in mechanisms),
        *warned,
    )


def _headline(runs: Sequence[Results], metrics: list[str]) -> Section:
    parts: list[Html] = []
    for metric in metrics:
        head: list[object] = ["Federated, judged at", *comparison.labels(runs)]
        rows: list[list[object]] = []
        for place in comparison.all_places(runs):
            found = [_row(run, metric, FEDERATED, place) for run in runs]
            rows.append([_place(runs, place), *(_cell(row, found[0], metric) for row in found)])
        note = (
            f"{words.direction(metric)}; below it the 95 % interval and the change against the first run. The runs are "
            f"not paired: intervals that overlap neither show nor exclude a difference."
        )
        parts += [tag("h3", words.title(metric)), tag("p", note, class_="note"), table(head, rows, class_="headline")]
    return Section("headline", "The federated models", join(parts))


def _place(runs: Sequence[Results], place: str) -> Html:
    held = any(held_out(run, place) for run in runs)
    return join([place, tag("small", "held out")]) if held else safe(place)


def _row(results: Results, metric: str, method: str, place: str) -> dict[str, Any] | None:
    rows = results.rows("headline", metric=metric, method=method, site=place)
    return rows[0] if rows else None


def _cell(row: dict[str, Any] | None, first: dict[str, Any] | None, metric: str) -> Html:
    """Write a value, its interval and its change against the first run, in words and not by colour only."""
    if row is None:
        return tag("small", "not in this run")
    decimals = words.digits(metric)
    shown = words.number(row["value"], decimals)
    if shown == words.DASH:
        return tag("abbr", words.DASH, title=words.undefined(metric))
    parts = [tag("span", shown), tag("small", words.interval(row, decimals).partition("(")[2].rstrip(")"))]
    if first is not None and first is not row and words.number(first["value"]) != words.DASH:
        parts.append(_change(row, first, metric, decimals))
    return join(parts)


def _change(row: dict[str, Any], first: dict[str, Any], metric: str, decimals: int) -> Html:
    gap = row["value"] - first["value"]
    better = (gap > 0) == words.higher_is_better(metric)
    overlap = row["low"] <= first["high"] and first["low"] <= row["high"]
    arrow = "=" if gap == 0 else "▲" if gap > 0 else "▼"
    said = "same" if gap == 0 else f"{'better' if better else 'worse'}, intervals {'overlap' if overlap else 'apart'}"
    kind = "note" if gap == 0 or overlap else "raise" if better else "fall"
    return tag("small", tag("span", f"{arrow} {words.number(gap, decimals, signed=True)} ", class_=kind), said)


def _figure(runs: Sequence[Results], svg: str, metric: str) -> Section:
    ns = [row["n"] for run in runs for row in run.rows("headline", metric=metric, method=FEDERATED)] or [0]
    caption = (
        f"{words.direction(metric)} of each run's federated model; lines: 95 % interval, patients resampled. n = "
        f"{min(ns):,} to {max(ns):,} images. Filled: trained on the site; hollow: never saw it."
    )
    picture = tag("div", Html(inline(svg, "comparison", caption)), class_="scroll", tabindex="0")
    below = tag("figcaption", tag("strong", "Figure 1. "), caption)
    return Section("figure", "Site by site", tag("figure", picture, below))


def _methods(runs: Sequence[Results], metric: str) -> Section:
    methods = dict.fromkeys(name for run in runs for name in run.methods)
    rows: list[list[object]] = []
    for place in comparison.all_places(runs):
        for method in methods:
            found = [_row(run, metric, method, place) for run in runs]
            if any(found):
                decimals = words.digits(metric)
                cells = [words.interval(row, decimals) if row else "not in this run" for row in found]
                rows.append([f"{place} · {method}", *cells])
    note = tag("p", f"{words.direction(metric)}, 95 % interval.", class_="note")
    shown = table(["Judged at · method", *comparison.labels(runs)], rows)
    return Section("methods", "All methods", join([note, shown]))


def _settings(runs: Sequence[Results]) -> Section:
    keys = differing(runs)
    rows: list[list[object]] = [[tag("code", key), *(_value(run, key) for run in runs)] for key in keys]
    rows += [["run", *(run.record["run"] for run in runs)], ["finished", *(run.record["finished"] for run in runs)]]
    for name, part, key in (("data digest", "data", "digest"), ("split digest", "data", "split_digest"),
                            ("code digest", "code", "digest")):  # fmt: skip
        rows.append([name, *(tag("span", str(run.record[part].get(key, ""))[:16], class_="digest") for run in runs)])
    told = f"{words.count(len(keys), 'setting')} of {len(runs[0].record['config'])} differ."
    parts = [tag("p", told, class_="note"), table(["", *comparison.labels(runs)], rows)]
    return Section("settings", "What differs between the runs", join(parts))


def _value(results: Results, key: str) -> Html:
    value = results.record["config"].get(key, words.DASH)
    return tag("code", str(value).lower() if isinstance(value, bool) else value)
