"""The last sections of a report: settings, data, code, and the files to take away."""

from typing import Any

from common.items import are_bags
from simulations.report import words
from simulations.report.markup import Html, join, table, tag
from simulations.report.page import Section
from simulations.report.sections import privacy_text
from simulations.results import Results
from simulations.tables import TABLES


def how_run(results: Results) -> Section:
    """Settings, data, code and machine, so that the run can be repeated and its parts recognised."""
    record = results.record
    data = record["data"]
    source = [
        ("data set", data["name"]),
        ("licence", data["licence"] or "not given; ask its owner before showing pictures"),
        ("classes", ", ".join(data["classes"]) or words.DASH),
        ("mask classes", ", ".join(data["mask_classes"]) or words.DASH),
        _item(data),
        ("data digest", _digest(data["digest"])),
        ("split digest", _digest(data["split_digest"])),
    ]
    code = [*record["code"].items(), *record["environment"].items()]
    code += [(f"seconds, {part}", words.number(float(time), 1)) for part, time in record["seconds"].items()]
    code += [("seeds", ", ".join(str(seed) for seed in record["seeds"])), ("created", record["created"])]
    settings = [(key, _setting(value)) for key, value in record["config"].items()]
    said = (record["config"].get("title"), privacy_text(record["privacy"]))  # both stand at the head of the page
    notes = [tag("li", note) for note in record["notes"] if note not in said]
    parts: list[Html] = [tag("ul", *notes)] if notes else []
    parts += [
        _folded("Data and licence", source, opened=True),
        _folded(f"Settings ({len(settings)})", [*settings, ("settings digest", _digest(record["config_digest"]))]),
        _folded("Code and machine", [(key, _digest(value) if key == "digest" else value) for key, value in code]),
    ]
    return Section("run", "How it was run", join(parts))


def files(results: Results) -> Section:
    """The tables to take away, with the meaning of every column."""
    rows: list[list[object]] = []
    for name, columns in TABLES.items():
        meaning = [tag("div", tag("code", column.name), f" {column.meaning}",
                       f" [{column.unit}]" if column.unit else "") for column in columns]  # fmt: skip
        link = tag("a", f"{name}.csv", href=f"tables/{name}.csv")
        rows.append(
            [
                link,
                f"{results.tables[name].num_rows:,}",
                tag("details", tag("summary", f"{len(columns)} columns"), *meaning, class_="plain"),
            ]
        )
    note = "Each also as Parquet. Pictures and attention maps: overlays.npz. Everything else about the run: run.json."
    return Section("files", "Tables to take away", table(["table", "rows", "meaning"], rows, note))


def _item(data: dict[str, Any]) -> tuple[str, str]:
    """Say what one item is."""
    if are_bags(data["image_size"]):
        return "bag", f"instances of {words.count(data['channels'] - 1, 'feature')}"
    return "image", f"{data['image_size']} × {data['image_size']} pixels, {words.count(data['channels'], 'channel')}"


def _folded(summary: str, rows: list[tuple[str, Any]], opened: bool = False) -> Html:
    content = table([], ([key, value] for key, value in rows), class_="pairs")
    return tag("details", tag("summary", summary), content, open=opened)


def _digest(value: object) -> Html:
    return tag("span", value, class_="digest")


def _setting(value: object) -> Html:
    return tag("code", str(value).lower() if isinstance(value, bool) else '""' if value == "" else value)
