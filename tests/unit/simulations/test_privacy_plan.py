"""A privacy plan: its figures against the accountant's, and what the command prints and draws."""

import json

import pytest
from typer.testing import CliRunner

from common.config import load_run_config
from common.privacy.accountant import cost
from common.privacy.events import Gaussian, PoissonSampled, Repeated
from simulations.cli import app
from simulations.privacy_plan import plan_run

SETTINGS = {
    "privacy.mechanism": "gaussian",
    "privacy.sampling-probability": 0.2,
    "rounds": 10,
    "attention.every": 0,
    "privacy.epsilon": 3.0,
}


@pytest.fixture(scope="module")
def found():
    return plan_run(load_run_config(SETTINGS), patients=200)


def test_the_noise_pays_for_the_run_and_for_no_more_rounds(found):
    steps = Repeated(PoissonSampled(0.2, Gaussian(found.noise_multiplier)), 5 * 10)
    assert cost([steps], 1e-5).epsilon == pytest.approx(found.epsilon)
    assert found.epsilon <= 3.0
    assert found.rounds_affordable == 10


def test_less_epsilon_needs_more_noise_and_more_patients(found):
    assert [row["epsilon"] for row in found.table] == [1.0, 3.0, 8.0]
    for key in ("noise_multiplier", "noise_of_a_step", "patients_for_a_tenth"):
        assert [row[key] for row in found.table] == sorted((row[key] for row in found.table), reverse=True)
    middle = found.table[1]
    assert middle["noise_of_a_step"] == pytest.approx(middle["noise_multiplier"] / (0.2 * 200))


def test_the_curve_grows_and_passes_through_the_run(found):
    costs = [row["epsilon"] for row in found.curve]
    assert costs == sorted(costs)
    assert {row["rounds"]: row["epsilon"] for row in found.curve}[10] == pytest.approx(3.0, abs=0.02)


def test_the_command_prints_and_draws(tmp_path):
    changes = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    call = ["privacy", "plan", "phantom", *changes, "--patients", "200"]
    shown = CliRunner().invoke(app, [*call, "--out", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "10 rounds at epsilon 3" in shown.output
    assert {path.name for path in tmp_path.iterdir()} == {"plan.csv", "curve.csv", "plan.png"}
    body = json.loads(CliRunner().invoke(app, [*call, "--json"]).output)
    assert body["rounds_affordable"] == 10
