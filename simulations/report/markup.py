"""HTML from functions: every text is escaped unless it is already `Html`."""

from collections.abc import Iterable
from html import escape

VOID = {"meta", "link", "br", "hr", "img", "col"}
"""Elements without an end tag."""


class Html(str):
    """Markup that is already safe."""

    __slots__ = ()


def safe(value: object) -> Html:
    """Escape a value, or give markup as it is."""
    return value if isinstance(value, Html) else Html(escape(str(value), quote=True))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Join parts, each escaped where it must be."""
    return Html(between.join(safe(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Write an element. `class_` becomes class, other underscores hyphens; None and False leave an attribute out."""
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{safe(value)}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening if name in VOID else f"{opening}{join(children)}</{name}>")


def table(head: list[object], rows: Iterable[list[object]], caption: object = "", class_: str = "") -> Html:
    """Write a table whose first column names the rows; it scrolls where it is too wide. No head: pairs of words."""
    header = [tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))] if head else []
    title = [tag("caption", caption)] if caption else []
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    whole = tag("table", *title, *header, tag("tbody", *body), class_=class_ or None)
    return tag("div", whole, class_="scroll", tabindex="0")
