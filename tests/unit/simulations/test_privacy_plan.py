"""A privacy plan: its figures against the accountant's, and what the command prints and draws."""

import json
import math

import pytest
from typer.testing import CliRunner

from common.config import load_run_config
from common.errors import PrivacyError
from common.privacy.accountant import cost
from common.privacy.calibration import gaussian_delta
from common.privacy.events import Gaussian, PoissonSampled, Repeated
from common.privacy.statement import upwards
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


METRICS = {**SETTINGS, "privacy.metrics-every": 2, "privacy.metrics-noise-multiplier": 3.0, "privacy.epsilon": 4.0}


def test_patients_who_only_judge_count_when_they_pay_more():
    # Five releases at 3: μ = √5/3, exactly 3.12 at 1e-5. Training with noise 4 costs less.
    found = plan_run(load_run_config({**METRICS, "privacy.noise-multiplier": 4.0}), patients=200)
    exact = cost([Repeated(Gaussian(3.0), 5)], 1e-5).epsilon
    assert found.epsilon == pytest.approx(exact)
    assert found.statement.startswith(f"Epsilon {upwards(exact)} ")
    assert gaussian_delta(exact, math.sqrt(5) / 3) == pytest.approx(1e-5, rel=1e-3)
    releases = found.rounds_affordable // 2
    assert gaussian_delta(4.0, math.sqrt(releases) / 3) <= 1e-5 < gaussian_delta(4.0, math.sqrt(releases + 1) / 3)
    assert {row["rounds"]: row["epsilon"] for row in found.curve}[10] == pytest.approx(exact, rel=1e-3)


def test_metrics_that_cost_too_much_are_refused_and_do_not_hang():
    with pytest.raises(PrivacyError, match=r"cost validation patients epsilon 3\.12.*metrics-every"):
        plan_run(load_run_config({**METRICS, "privacy.epsilon": 2.0}), patients=200)
    found = plan_run(load_run_config(METRICS), patients=200)
    assert [row["epsilon"] for row in found.table] == [4.0, 8.0]  # 1 and 3 are less than the metrics cost


def test_the_command_prints_and_draws(tmp_path):
    changes = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    call = ["privacy", "plan", "phantom", *changes, "--patients", "200"]
    shown = CliRunner().invoke(app, [*call, "--out", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "10 rounds at epsilon 3" in shown.output
    assert {path.name for path in tmp_path.iterdir()} == {"plan.csv", "curve.csv", "plan.png"}
    body = json.loads(CliRunner().invoke(app, [*call, "--json"]).output)
    assert body["rounds_affordable"] == 10
