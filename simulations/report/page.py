"""The page around the sections: one self-contained HTML file, no script, nothing fetched."""

from dataclasses import dataclass
from pathlib import Path

from simulations.report.markup import Html, tag

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The browser itself refuses any address outside the file."""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page."""

    id: str
    heading: str
    content: Html


def page(title: str, header: Html, sections: list[Section], footer: str) -> str:
    """Put header, contents, sections and footer together."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(style)),
    )
    links = [tag("li", tag("a", section.heading, href=f"#{section.id}")) for section in sections]
    contents = tag("nav", tag("p", "Contents"), tag("ol", *links), aria_label="Contents")
    parts = [tag("section", tag("h2", part.heading), part.content, id=part.id) for part in sections]
    main = tag("main", header, *parts, tag("footer", footer))
    body = tag("body", tag("div", contents, main, class_="layout"))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"
