"""A figure as files and as part of a page: unique ids, no foreign address, colours that follow the page."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from simulations.report.style import BLUE, INK, MUTED, PAPER, RC, RULE, TINT

FOLLOWS_PAGE = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    TINT: "--tint",
    BLUE.lower(): "--federated",
}
"""Tone as it stands in the SVG to the page's; blue is too dark for a dark page."""


def svg_text(figure: Figure) -> str:
    """Write the figure as SVG; the same figure gives the same text."""
    file = io.StringIO()
    with _drawing():
        figure.set_dpi(200)  # of pictures inside; lines and words have none
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(file, metadata={"Date": None, "Creator": None})
    return file.getvalue()


def png_bytes(figure: Figure, dpi: int = 160) -> bytes:
    """Write the figure as PNG."""
    file = io.BytesIO()
    with _drawing():
        figure.set_dpi(dpi)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(file, metadata={"Software": None})
    return file.getvalue()


def inline(svg: str, name: str, alt: str) -> str:
    """Make an SVG fit for standing inside a page beside others.

    Ids get the figure's name in front, since a page has one space of ids; the prolog, metadata and page-wide style
    rules go; tones become the page's.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<[^<>]+>", lambda found: _own_ids(found.group(), name), body)
    body = body.replace("'DejaVu Sans'", "var(--sans)")
    for tone, variable in FOLLOWS_PAGE.items():
        body = body.replace(tone, f"var({variable})")
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    width = round(float(size.group(1)) * 4 / 3) if size else 900
    opening = (
        f'<svg class="figure" role="img" aria-label="{escape(alt, quote=True)}" style="--width: {width}px" '
        f'viewBox="0 0 {size.group(1)} {size.group(2)}">'
        if size
        else f'<svg class="figure" role="img" aria-label="{escape(alt, quote=True)}">'
    )
    return opening + body[body.index(">") + 1 :]


def _own_ids(element: str, name: str) -> str:
    if element.startswith("<image"):  # matplotlib gives equal pictures equal ids, and nothing refers to them
        return re.sub(r' id="[^"]*"', "", element)
    element = re.sub(r' id="', f' id="{name}-', element)
    return re.sub(r'((?:href="|url\()#)', rf"\g<1>{name}-", element)


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw with our settings; a PNG may lack glyphs of a site's script, the SVG and the page have them."""
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
