"""`consilium-site ledger`: what it prints, and that damage ends it with exit code 5 and the line."""

import json
import math
import re

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.ledger_pages import summary
from common.privacy.budget import Budget
from common.privacy.events import Gaussian
from common.privacy.ledger import NAME, Release, opened
from common.privacy.statement import largest_true_positive_rate, odds, statement

BUDGET = Budget(5.0, 1e-5)


@pytest.fixture
def site(tmp_path):
    for number in (1, 2):
        release = Release(run="r" * 64, round=number, purpose="training", cohort="s/train", events=(Gaussian(4.0),))
        with opened(tmp_path / "state" / "ledger", BUDGET) as ledger:
            ledger.authorise([release])
            ledger.record(release, 1234, "d" * 64)
    path = tmp_path / "site.toml"
    path.write_text('name = "a"\nstate = "state"\n[data]\nname = "phantom"\n[budget]\nepsilon = 5.0\ndelta = 0.00001\n')
    return path


def call(*arguments, code=0):
    found = CliRunner().invoke(app, ["ledger", *map(str, arguments)])
    assert found.exit_code == code, found.output
    return found


def test_show_lists_what_left_and_what_it_cost(site):
    text = call("show", site).output
    assert "1,234" in text
    assert "training" in text
    assert "The site allows epsilon 5 in all" in text
    body = json.loads(call("show", site, "--json").output)
    assert [row["round"] for row in body["releases"]] == [1, 2]
    assert body["releases"][1]["epsilon"] == pytest.approx(body["epsilon"])
    assert body["epsilon"] == pytest.approx(1.36, abs=0.02)  # two Gaussians of 4: mu = √2/4, exactly 1.359


def test_verify_says_that_it_is_whole_or_which_line_is_not(site, tmp_path):
    assert "whole: 2 releases" in call("verify", site).output
    assert json.loads(call("verify", tmp_path / "state", "--json").output)["whole"]
    path = tmp_path / "state" / "ledger" / NAME
    path.write_text(path.read_text().replace('"noise_multiplier": 4.0', '"noise_multiplier": 9.0', 1))
    assert "line 1 does not continue the chain" in call("verify", site, code=5).output


def test_export_has_the_items_of_the_standard(site, tmp_path):
    out = tmp_path / "export.json"
    call("export", site, "--out", out)
    body = json.loads(out.read_text())
    assert {"unit_of_privacy", "neighbouring_relation", "composition", "mechanisms", "trust_model"} <= set(body)
    assert body["mechanisms"] == ["Gaussian"]
    assert "nothing is overwritten" in call("export", site, "--out", out, code=3).output


def test_a_folder_without_a_ledger_is_refused(tmp_path):
    assert "holds no ledger" in call("show", tmp_path, code=3).output


def test_identity_is_made_once_and_shows_the_public_key_alone(tmp_path):
    found = CliRunner().invoke(app, ["identity", "a", "--out", str(tmp_path / "key")])
    assert found.exit_code == 0
    assert len(found.output.strip()) == 64
    assert found.output.strip() not in (tmp_path / "key").read_text()
    assert CliRunner().invoke(app, ["identity", "a", "--out", str(tmp_path / "key")]).exit_code == 3


def test_the_statement_in_odds():
    assert odds(1.0) == pytest.approx(2.718, abs=1e-3)
    # By hand at ε = 1, δ = 0: min(e·0.05, 1 − e⁻¹·0.95) = 0.1359.
    assert largest_true_positive_rate(1.0, 0.0, 0.05) == pytest.approx(0.1359, abs=1e-4)
    assert largest_true_positive_rate(8.0, 1e-5, 0.05) == pytest.approx(1 - 2.718281828**-8 * 0.94999, abs=1e-9)
    assert largest_true_positive_rate(0.0, 0.0, 0.05) == pytest.approx(0.05)
    assert "13.6%" in statement(1.0, 1e-9, "pld")
    assert "no bound" in statement(float("inf"), 1e-5, "pld")


@pytest.mark.parametrize("epsilon", [1.0, 2.994, 2.9999, 7.001, 0.0123456, 101.2, 4.0])
def test_what_is_shown_is_never_less_than_what_it_is(epsilon):
    shown = statement(epsilon, 1e-5, "pld")
    told, times = (float(re.search(pattern, shown)[1]) for pattern in (r"Epsilon (\S+) at", r"at most (\S+) times"))
    assert epsilon <= told <= epsilon * 1.01
    assert math.exp(epsilon) <= times <= math.exp(epsilon) * 1.01
    share = float(re.search(r"finds at most ([\d.]+)%", shown)[1]) / 100
    assert largest_true_positive_rate(epsilon, 1e-5, 0.05) <= share + 1e-12


def test_a_cost_beyond_all_doubles_can_be_said():
    assert "inf times" in statement(800.0, 1e-5, "pld")


def written(folder, *events, placement="site", budget=BUDGET):
    releases = [
        Release(run="r" * 64, round=1, purpose="training", cohort="s/train", events=(event,), placement=placement)
        for event in events
    ]
    with opened(folder, budget) as ledger:
        ledger.authorise(releases)
        for each in releases:
            ledger.record(each, 1, "")


def test_much_noise_is_not_nothing(tmp_path):
    # At delta 1e-5 noise of 100,000 sensitivities costs an epsilon of exactly 0; something left all the same.
    written(tmp_path / "none")
    assert "Nothing about any patient has left" not in _shown(tmp_path / "much", Gaussian(1e5))
    with opened(tmp_path / "none", BUDGET) as ledger:
        assert summary(ledger, BUDGET)["statement"].startswith("Nothing about any patient has left")


def _shown(folder, *events, **how):
    written(folder, *events, **how)
    return call("show", folder).output


def test_the_figure_comes_with_what_it_rests_on(tmp_path):
    assert "1 of 1 releases left without noise, which the server added" in _shown(
        tmp_path / "c", Gaussian(4.0), placement="central"
    )
    assert "as long as secure aggregation does" in _shown(tmp_path / "d", Gaussian(4.0), placement="distributed")
    alone = _shown(tmp_path / "s", Gaussian(4.0))
    assert "of 1 releases" not in alone
    assert "No [budget] is known here" in alone


def test_a_budget_needs_no_caveat(site):
    assert json.loads(call("show", site, "--json").output)["caveats"] == []
