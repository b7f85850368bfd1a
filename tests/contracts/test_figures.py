"""Every figure: draws, says what is missing, names n, touches nothing global, and stands in a page beside others."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from statistics import fmean

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from simulations.report import FIGURES
from simulations.report.svg import inline, png_bytes, svg_text
from simulations.results import HELD_OUT_MEAN, Results
from simulations.tables import TABLES, make_table
from tests.made_results import empty_results, made_results

EVERY = pytest.mark.parametrize("name", FIGURES)


@pytest.fixture(scope="module")
def made() -> Results:
    return made_results()


@pytest.fixture(scope="module")
def drawn(made: Results) -> Callable[[str], Figure]:
    return cache(lambda name: FIGURES.load(name)(made))


@pytest.fixture(scope="module")
def svg_of(drawn: Callable[[str], Figure]) -> Callable[[str], str]:
    return cache(lambda name: svg_text(drawn(name)))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]


@EVERY
def test_it_draws_as_svg_and_png_and_leaves_settings_alone(name: str, made: Results, svg_of):
    before = dict(matplotlib.rcParams)
    figure = FIGURES.load(name)(made)
    assert isinstance(figure, Figure)
    assert svg_text(figure) == svg_of(name), "the same results give the same file"
    assert png_bytes(figure, dpi=60).startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before


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
def test_inline_it_has_ids_of_its_own_and_no_foreign_address(name: str, svg_of):
    markup = inline(svg_of(name), name, "what <it> shows")
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


def marks(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    """Lines that name what they show, "site|method": their x and y."""
    lines = [line for axis in figure.axes for line in axis.lines if "|" in str(line.get_label())]
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}


def test_headline_shows_the_table(made: Results, drawn):
    rows = made.rows("headline", metric="auroc")
    shown = marks(drawn("headline"))
    expected = {f"{row['site']}|{row['method']}": row["value"] for row in rows if row["site"] != HELD_OUT_MEAN}
    assert {name: x for name, (x, _) in shown.items()} == {name: [value] for name, value in expected.items()}
    words = texts(drawn("headline"))
    for row in rows:
        if row["site"] != HELD_OUT_MEAN:
            assert f"{row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})" in words


def test_differences_show_the_table_but_never_two_different_sets_of_images(made: Results, drawn):
    rows = made.rows("differences", metric="auroc")
    shown = {name: x for name, (x, _) in marks(drawn("differences")).items()}
    there = {f"{row['site']}|{row['baseline']}": [row["difference"]] for row in rows if row["site"] != HELD_OUT_MEAN}
    assert shown == there
    two = made_results(held_out=2)
    assert any(row["baseline"] == "leave one site out" for row in two.rows("differences", site=HELD_OUT_MEAN))
    shown = marks(FIGURES.load("differences")(two))
    assert f"{HELD_OUT_MEAN}|pooled" in shown
    assert f"{HELD_OUT_MEAN}|leave one site out" not in shown


def test_learning_shows_the_mean_over_seeds(made: Results, drawn):
    shown = marks(drawn("learning"))
    rows = made.rows("history", method="federated", site="St. Anna", metric="auroc")
    x, y = shown["St. Anna|federated"]
    for round_, value in zip(x, y, strict=True):
        assert value == pytest.approx(fmean(row["value"] for row in rows if row["round"] == round_))
    assert len(x) == 12


def test_matrix_shows_the_table(made: Results, drawn):
    words = texts(drawn("matrix"))
    rows = made.rows("matrix", metric="auroc")
    for row in rows:
        assert f"{row['value']:.3f}" in words
        assert f"{row['low']:.3f}–{row['high']:.3f}" in words
    (image,) = (axis.images[0] for axis in drawn("matrix").axes if axis.images)
    assert sorted(image.get_array().ravel()) == sorted(row["value"] for row in rows)


def test_a_wide_matrix_leaves_its_intervals_to_the_table():
    wide = made_results(sites=tuple(f"site {index}" for index in range(12)))
    words = texts(FIGURES.load("matrix")(wide))
    row = wide.rows("matrix", metric="auroc")[0]
    assert f"{row['value']:.2f}" in words
    assert f"{row['low']:.3f}–{row['high']:.3f}" not in words
    assert "Intervals stand in the table" in import_module("simulations.report.matrix").describe(wide)


def test_calibration_shows_the_table_in_fewer_fuller_bins(made: Results, drawn):
    """Walk along the table and the curve together: each point is the mean of the next bins, and none is left over."""
    shown = marks(drawn("calibration"))
    assert {name.partition("|")[2] for name in shown} == {"federated", "pooled", "local only"}
    assert {f"{site}|federated" for site in made.sites()} <= set(shown)
    assert "Riverside|local only" not in shown, "away from home the table has one site's model only"
    for name, (x, y) in shown.items():
        site, _, method = name.partition("|")
        rows = [row for row in made.rows("calibration", site=site, method=method) if row["count"] > 0]
        assert len(x) <= 6 or sum(row["count"] for row in rows) > 600
        for said, seen in zip(x, y, strict=True):
            taken = [rows.pop(0)]
            while sum(row["count"] for row in taken) < 10 or weighted(taken, "confidence") != pytest.approx(said):
                taken.append(rows.pop(0))
            assert weighted(taken, "observed") == pytest.approx(seen)
        assert not rows


def weighted(rows: list[dict], key: str) -> float:
    return float(np.average([row[key] for row in rows], weights=[row["count"] for row in rows]))


def test_calibration_names_the_error_and_its_interval(made: Results, drawn):
    said = " ".join(texts(drawn("calibration")))
    for site in made.sites():
        (row,) = made.rows("headline", site=site, metric="ece", method="federated")
        assert f"ECE {row['value']:.2f} ({row['low']:.2f}–{row['high']:.2f})" in said


def test_pixels_get_no_interval_that_takes_them_as_independent(made: Results, drawn):
    pixels = replace(made, record={**made.record, "task": "segmentation"})
    upright = [
        [line for line in figure.findobj(Line2D) if len(line.get_xdata()) == 2 and len(set(line.get_xdata())) == 1]
        for figure in (drawn("calibration"), FIGURES.load("calibration")(pixels))
    ]
    assert len(upright[0]) > len(made.sites())
    assert len(upright[1]) < len(upright[0])
    assert "pixels per site" in import_module("simulations.report.calibration").describe(pixels)


def test_add_shows_the_table(made: Results, drawn):
    figure = drawn("add")
    (image,) = (axis.images[0] for axis in figure.axes if axis.images)
    assert sorted(image.get_array().ravel()) == sorted(row["add_w"] for row in made.rows("add"))
    dots = {line.get_label(): list(line.get_xdata()) for line in figure.findobj(Line2D)}
    for block in {row["block"] for row in made.rows("add_blocks")}:
        assert dots[block] == [row["w"] for row in made.rows("add_blocks", block=block)]


def test_health_shows_the_last_round_and_every_alarm(made: Results, drawn):
    said = texts(drawn("health"))
    for site in made.sites():
        for family in ("saturation", "border", "shortcut"):
            rows = made.rows("health", site=site, family=family, round=12)
            value = f"{fmean(row['value'] for row in rows):.2f}"
            alarm = any(row["alarm"] for row in rows)
            assert (f"{value}  round 11, 12" if alarm else value) in said


def test_sites_show_the_record(made: Results, drawn):
    figure = drawn("sites")
    widths = [patch.get_width() for axis in figure.axes for bars in axis.containers for patch in bars]
    sites = made.record["data"]["sites"]
    assert widths == [site[part]["images"] for part in ("train", "val", "test") for site in sites]
    for site in sites:
        assert f"{site['positive_share']:.2f}" in texts(figure)


def test_overlays_say_how_much_attention_is_inside(made: Results, drawn):
    words = " ".join(texts(drawn("overlays")))
    for overlay in made.overlays:
        energy, lift = overlay.in_mask()
        if energy == energy:
            assert f"inside the outline {100 * energy:.1f} % of attention, lift {lift:.1f}" in words
    assert words.count("nothing to outline") == sum(not overlay.mask.any() for overlay in made.overlays)


def test_overlays_of_a_segmentation_say_how_well_the_outlines_meet(made: Results):
    """Dice by hand: 4 and 2 pixels, of which 1 in common."""
    first, second, *_ = made.overlays
    mask, found = np.zeros_like(first.image), np.zeros_like(first.image)
    mask[10:12, 10:12], found[11, 11:13] = 1, 1
    some = [replace(first, mask=mask, prediction=found), replace(second, mask=mask, prediction=0 * found)]
    said = " ".join(texts(FIGURES.load("overlays")(replace(made, overlays=some))))
    assert "Dice of this image 0.33" in said
    assert "the model outlined nothing" in said


@EVERY
def test_awkward_runs_draw_too(name: str):
    """One site, none held out, in a script that the PNG's font lacks; more sites than fit; undefined values."""
    alone = made_results(sites=("北京协和医院",), held_out=0, metrics=("ece",), rounds=1)
    many = made_results(sites=tuple(f"site {index}" for index in range(18)), held_out=3, rounds=2)
    nothing = dict.fromkeys(("value", "low", "high"), float("nan"))
    tables = {
        table: make_table(table, [{**row, **nothing} for row in alone.rows(table)]) for table in ("headline", "matrix")
    }
    undefined = replace(alone, tables={**alone.tables, **tables})
    for results in (alone, undefined, many):
        figure = FIGURES.load(name)(results)
        assert svg_text(figure)
    assert png_bytes(FIGURES.load(name)(alone), dpi=40)
