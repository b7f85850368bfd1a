"""The reference page says what the code does: every knob and every site, in the words and numbers of the tables."""

from dataclasses import fields
from pathlib import Path

import pytest

from common.data.phantom_labels import LABELS
from common.data.phantom_lesions import KINDS
from common.data.phantom_population import Population
from common.data.phantom_scanner import STAGES, Scanner
from common.data.phantom_sites import SITES, Site

PAGE = (Path(__file__).parents[4] / "docs/reference/phantom.md").read_text()


def plain(value: float) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else f"{value:g}"


@pytest.mark.parametrize("owner", [Scanner, Population])
def test_every_knob_has_its_row(owner):
    for each in fields(owner):
        told = each.metadata
        span = f"{told['low']:g} to {told['high']:g}"
        assert f"| `{each.name}` | {told['cause']} | {told['unit']} | {span} | {plain(each.default)} |" in PAGE


def test_causes_stand_in_the_order_in_which_they_act():
    rows = [PAGE.index(f"| `{name}` | ") for name, _ in STAGES]
    assert rows == sorted(rows)


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_every_site_has_its_row(site: Site):
    chosen = ((each.name, getattr(site.scanner, each.name), each.default) for each in fields(Scanner))
    scanner = ", ".join(f"{name} {plain(value)}" for name, value, neutral in chosen if value != neutral)
    who = site.population
    marker = f"{who.marker_with_lesion:g} / {who.marker_without_lesion:g}"
    assert (
        f"| `{site.name}` | {scanner} | {who.prevalence:g} | {who.small_lesions:g} | {who.label_noise:g} | {marker} |"
        in PAGE
    )


def test_every_label_and_kind_of_lesion_is_told():
    assert all(f"`{name}`" in PAGE for name in LABELS)
    for kind in KINDS:
        weak, strong = sorted(abs(contrast) for contrast in kind.contrast)
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| {kind.name} "))
        assert f"{weak:.2f} to {strong:.2f}" in line
        assert f"{kind.share:.0%}".replace("%", " %") in line
