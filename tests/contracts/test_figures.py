"""Every figure: draws, says what is missing, names n, touches nothing global, and stands in a page beside others."""

import re
from importlib import import_module

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from simulations.report import FIGURES
from simulations.report.svg import inline, png_bytes, svg_text
from simulations.results import Results
from simulations.tables import TABLES
from tests.made_results import empty_results, made_results

EVERY = pytest.mark.parametrize("name", FIGURES)


@pytest.fixture(scope="module")
def made() -> Results:
    return made_results()


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]


@EVERY
def test_it_draws_as_svg_and_png_and_leaves_settings_alone(name: str, made: Results):
    before = dict(matplotlib.rcParams)
    figure = FIGURES.load(name)(made)
    assert isinstance(figure, Figure)
    svg, png = svg_text(figure), png_bytes(figure, dpi=60)
    assert dict(matplotlib.rcParams) == before
    assert svg.rstrip().endswith("</svg>")
    assert png.startswith(b"\x89PNG")


@EVERY
def test_the_same_results_give_the_same_svg(name: str, made: Results):
    draw = FIGURES.load(name)
    assert svg_text(draw(made)) == svg_text(draw(made))


@EVERY
def test_empty_tables_say_what_is_missing(name: str):
    results = empty_results()
    results.record["data"]["sites"] = []
    said = " ".join(texts(FIGURES.load(name)(results)))
    assert re.match(r"(No|Nothing) \w+", said), said


@EVERY
def test_its_module_names_title_table_and_caption(name: str, made: Results):
    module = import_module(FIGURES[name].partition(":")[0])
    assert module.TITLE
    assert module.TABLE in (*TABLES, "")
    assert re.search(r"\d", module.describe(made)), "a caption names how many"
    assert module.describe(empty_results())


@EVERY
def test_inline_it_has_ids_of_its_own_and_no_foreign_address(name: str, made: Results):
    markup = inline(svg_text(FIGURES.load(name)(made)), name, "what <it> shows")
    ids = re.findall(r'<[^<>]*? id="([^"]+)"', markup)
    assert ids
    assert all(one.startswith(f"{name}-") for one in ids)
    assert len(ids) == len(set(ids))
    asked = re.findall(r'(?:href="|url\()#([^")]+)', markup)
    assert set(asked) <= set(ids)
    assert not re.search(r'(?:href|src)="(?!#|data:)', markup)
    assert 'aria-label="what &lt;it&gt; shows"' in markup
    assert "<style" not in markup
    assert "<metadata" not in markup
