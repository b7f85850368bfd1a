"""The page: whole, alone, escaped, honest in words; and the page that compares runs."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from common.errors import ConfigError, RunFolderError
from simulations import report
from simulations.report import FIGURES, words
from simulations.report.build import build_report, has_section
from simulations.report.compare import cautions, compare_report, differing
from simulations.report.headline import best_value
from simulations.report.markup import VOID, Html, safe, tag
from simulations.report.sections import header, headline_table, privacy_text
from simulations.report.sentences import sentences, verdict
from simulations.report.style import span
from simulations.report.svg import FOLLOWS_PAGE
from simulations.results import FEDERATED, HELD_OUT_MEAN, Results, load_results, save
from simulations.tables import make_table
from tests.made_results import SITES, empty_results, made_results


class Reader(HTMLParser):
    """Checks that elements close in order; keeps attributes, ids and visible text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.names: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, name, attributes) -> None:
        self.handle_startendtag(name, attributes)
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes) -> None:
        self.names.add(name)
        for key, value in attributes:
            if key == "id":
                self.ids.append(value)
            if key in ("href", "src", "xlink:href", "srcset", "action", "data"):
                self.addresses.append(value)
            assert not key.startswith("on"), "no script in attributes"

    def handle_endtag(self, name) -> None:
        assert self.open, f"</{name}> closes nothing"
        assert self.open.pop() == name

    def handle_data(self, data) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    results = made_results()
    save(results, folder)
    (folder / "corruptions").mkdir()
    for name in ("summary.csv", "rows.csv"):
        (folder / "corruptions" / name).write_text("written by the study, to which the page only points\n")
    build_report(results, folder)
    return folder


def test_the_page_is_whole_and_stands_alone(run: Path):
    reader = read(run / "report.html")
    assert not {"script", "iframe", "object", "embed"} & reader.names
    assert len(reader.ids) == len(set(reader.ids))
    for address in reader.addresses:
        if address.startswith("#"):
            assert address[1:] in reader.ids
        elif not address.startswith("data:"):
            assert (run / address).is_file(), address
    page = (run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in unescape(page)


def test_names_are_text_everywhere(run: Path):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    seen = "".join(read(run / "report.html").text)
    for site in SITES:
        assert site in seen
    for name in FIGURES:
        assert "<script" not in (run / f"figures/{name}.svg").read_text(encoding="utf-8")


def test_every_figure_lies_in_the_folder_and_in_the_page(run: Path):
    page = (run / "report.html").read_text(encoding="utf-8")
    for name in FIGURES:
        assert (run / f"figures/{name}.svg").stat().st_size > 1000
        assert (run / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f'<section id="{name}">' in page
    assert page.count('role="img" aria-label="') == len(FIGURES)
    assert not any(tone in page[page.index("</style>") :] for tone in FOLLOWS_PAGE), "tones follow the page"


def test_the_page_says_privacy_licence_and_digests_aloud(run: Path):
    seen = "".join(read(run / "report.html").text)
    results = load_results(run)
    assert "Privacy mechanism: none. Updates and signatures were released in the clear." in seen
    for said in ("licence", "digest", "split_digest"):
        assert results.record["data"][said] in seen
    assert results.record["config_digest"] in seen
    assert results.record["code"]["digest"] in seen
    assert results.record["notes"][0] in seen
    for key in results.record["config"]:
        assert key in seen


def test_empty_results_make_a_page_too(tmp_path: Path):
    page = build_report(empty_results(), tmp_path)
    seen = "".join(read(page).text)
    assert "has not been judged" in seen


def test_a_figure_that_few_runs_can_fill_stands_only_where_it_is_filled(tmp_path: Path):
    assert has_section(made_results(), "distances")
    assert not has_section(empty_results(), "distances")
    assert all(has_section(empty_results(), name) for name in FIGURES if name not in ("distances", "robustness"))
    text = build_report(empty_results(), tmp_path).read_text(encoding="utf-8")
    assert "under privacy</h2>" not in text
    assert not (tmp_path / "figures" / "distances.svg").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        build_report(empty_results(), tmp_path / "file")


def test_the_best_of_each_row_is_marked_in_words():
    results = made_results()
    table = str(headline_table(results, "auroc"))
    best = re.findall(r"<b>([\d.]+)</b><span class=\"best\">best</span>", table)
    rows = results.rows("headline", metric="auroc")
    places = [site for site in dict.fromkeys(row["site"] for row in rows) if site != HELD_OUT_MEAN]
    expected = sorted(f"{max(row['value'] for row in rows if row['site'] == site):.3f}" for site in places)
    assert sorted(best) == expected
    lower = best_value([row for row in results.rows("headline", metric="ece") if row["site"] == "St. Anna"], "ece")
    assert lower == min(row["value"] for row in results.rows("headline", metric="ece", site="St. Anna"))


def test_none_is_best_where_all_are_written_alike():
    rows = [{"site": "a", "method": name, "value": 0.5 + tiny} for name, tiny in (("x", 0.0), ("y", 1e-6))]
    assert best_value(rows, "auroc") != best_value(rows, "auroc"), "NaN"
    assert best_value([*rows, {"site": "a", "method": "z", "value": 0.6}], "auroc") == 0.6


def test_what_is_undefined_is_a_dash_with_its_reason():
    results = with_rows(made_results(), "headline", lambda row: {**row, "value": float("nan"), "low": float("nan")})
    table = str(headline_table(results, "auroc"))
    assert f'<abbr title="{words.UNDEFINED}">–</abbr>' in table
    assert "nan" not in table
    told = sentences(results)
    assert words.UNDEFINED in told[0].lead


@pytest.mark.parametrize(
    ("metric", "low", "high", "said"),
    [
        ("auroc", 0.01, 0.05, "better"),
        ("auroc", -0.05, -0.01, "worse"),
        ("auroc", -0.01, 0.05, "undecided"),
        ("auroc", 0.0, 0.05, "undecided"),
        ("ece", 0.01, 0.05, "worse"),
        ("ece", -0.05, -0.01, "better"),
        ("auroc", float("nan"), float("nan"), "unpaired"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(metric: str, low: float, high: float, said: str):
    assert verdict({"metric": metric, "low": low, "high": high}) == said


def test_losing_is_said_as_plainly_as_winning():
    def lose(row):
        return {**row, "difference": -0.05, "low": -0.08, "high": -0.02}

    results = with_rows(made_results(), "differences", lose)
    told = sentences(results)
    place = next(one for one in told if one.lead.startswith("At Riverside, which took no part in training"))
    ours = results.rows("headline", site="Riverside", method=FEDERATED, metric="auroc")[0]
    assert f"AUROC {ours['value']:.2f} ({ours['low']:.2f}–{ours['high']:.2f}), n = {ours['n']}" in place.lead
    assert [said for said, _ in place.points] == ["Worse than"]
    assert "difference −0.050, −0.080 to −0.020" in place.points[0][1]
    assert any("better at 0 of 5 sites, worse at 5, not told apart at 0" in one.lead for one in told)


def test_without_a_held_out_site_or_a_pair_the_words_say_so():
    results = made_results(held_out=0)
    results = replace(results, tables={**results.tables, "differences": make_table("differences")})
    told = sentences(results)
    assert told[0].lead.startswith("No site was held out")
    assert {said for one in told for said, _ in one.points} == {"Without a paired comparison:"}


def test_many_held_out_sites_are_told_by_their_mean():
    told = sentences(made_results(held_out=4))
    assert told[0].lead.startswith("On average over the held-out sites")
    assert not any("leave one site out" in what for _, what in told[0].points)


def test_axes_leave_no_room_below_zero_where_nothing_is_negative():
    low, high = span([0.0, 0.0], least=0.04)
    assert -0.05 * high < low < 0 < high, "room for half a marker, not for a tick"
    assert span([0.5, 0.7]) == pytest.approx((0.488, 0.712))
    assert span([-1.0, 1.0]) == pytest.approx((-1.12, 1.12))
    assert span([float("nan")]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [(0.87149, False, "0.871"), (-0.0001, True, "0.000"), (-0.25, True, "−0.250"), (0.25, True, "+0.250"),
     (float("nan"), False, "–"), (float("inf"), False, "–"), (None, False, "–")],
)  # fmt: skip
def test_numbers_are_written_one_way(value, signed: bool, text: str):
    assert words.number(value, 3, signed) == text


def test_long_names_are_cut_in_the_middle():
    assert words.shorten("Northfield", 20) == "Northfield"
    cut = words.shorten("Universitätsklinikum Nord, Haus 7", 20)
    assert len(cut) <= 20
    assert cut.startswith("Univers")
    assert cut.endswith("Haus 7")


def test_markup_escapes_all_but_markup():
    assert tag("p", "<b>", Html("<i></i>"), class_='a"b', hidden=True, id=None) == (
        '<p class="a&quot;b" hidden>&lt;b&gt;<i></i></p>'
    )
    assert safe(3) == "3"


def test_runs_side_by_side(tmp_path: Path):
    first, second = (
        made_results(),
        changed(made_results(skill=-0.2), name="fedprox <b>", **{"strategy.name": "fedprox"}),
    )
    page = compare_report([first, second], tmp_path)
    reader = read(page)
    seen = " ".join("".join(reader.text).split())
    assert "fedprox <b>" in seen
    assert "worse, intervals apart" in seen
    assert "strategy.name" in seen
    assert "1 setting of" in seen
    assert not {"script"} & reader.names
    assert (tmp_path / "figures/comparison.svg").is_file()
    for row in second.rows("headline", metric="auroc", method=FEDERATED):
        if row["site"] != HELD_OUT_MEAN:
            assert words.interval(row) in seen


def test_a_comparison_of_unlike_runs_warns():
    first, second = made_results(), changed(made_results(), name="other")
    assert cautions([first, second]) == []
    second.record["data"] = {**second.record["data"], "digest": "0" * 64}
    second.record["code"] = {**second.record["code"], "digest": "1" * 64}
    second.record["seeds"] = [7]
    assert [words_.split()[0] for words_ in cautions([first, second])] == ["The", "The", "The"]
    assert "not judged on the same images" in cautions([first, second])[0]
    assert differing([first, second]) == []


def test_a_comparison_needs_two_runs_and_a_common_metric(tmp_path: Path):
    with pytest.raises(ConfigError, match="two or more"):
        compare_report([made_results()], tmp_path)
    with pytest.raises(ConfigError, match="share no metric"):
        compare_report([made_results(), made_results(metrics=("brier",))], tmp_path)


def with_rows(results: Results, name: str, change) -> Results:
    rows = [change(row) for row in results.rows(name)]
    return replace(results, tables={**results.tables, name: make_table(name, rows)})


def changed(results: Results, name: str, **config) -> Results:
    record = {**results.record, "name": name, "config": {**results.record["config"], **config}}
    return replace(results, record=record)


def test_the_page_tells_title_and_pictures_once_and_at_its_head(tmp_path: Path):
    results = changed(made_results(), "demo", title="Six hospitals learn <together>")
    notes = ["Six hospitals learn <together>", privacy_text("none"), "A word of its own."]
    results = replace(results, record={**results.record, "notes": notes})
    seen = "".join(read(build_report(results, tmp_path)).text)
    for said in notes:
        assert seen.count(said) == (2 if said == notes[0] else 1), "the title is also a setting"
    assert seen.index(notes[0]) < seen.index("In brackets")
    assert f"{len(results.overlays)} test images with the expert's label or outline; no name is attached" in seen
    assert results.record["data"]["licence"] in seen[: seen.index("In brackets")]
    assert "hold pictures" not in str(header(empty_results()))


def test_words_stand_out_from_what_is_behind_them_by_day_by_night_and_in_print():
    """WCAG 2.2: 4.5 to 1 for words, 3 to 1 for the federated model's marks."""
    style = (Path(report.__file__).with_name("page.css")).read_text(encoding="utf-8")
    roots = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    assert len(roots) == 3
    behind = {"ink": ("paper", "back", "tint", "warn-back"), "muted": ("paper", "back", "tint"),
              "accent": ("paper", "back", "tint"), "warn": ("warn-back", "paper")}  # fmt: skip
    for root in roots:
        tones = dict(re.findall(r"--([\w-]+): (#\w{6})", root))
        for tone, others in behind.items():
            assert all(contrast(tones[tone], tones[other]) >= 4.5 for other in others), tone
        assert contrast(tones["federated"], tones["tint"]) >= 3


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(tone: str) -> float:
    parts = [int(tone[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
