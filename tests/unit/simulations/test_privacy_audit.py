"""An audit of a run: what it claims and takes, what it prints, and the exit code of a claim that is false."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

import simulations.privacy_audit as module
from common.privacy.accountant import cost
from common.privacy.events import Gaussian, PoissonSampled, Repeated
from simulations.attacks.claim import Claim
from simulations.attacks.finding import Finding
from simulations.audit_pages import show_audit
from simulations.cli import app
from simulations.privacy_audit import UNPROTECTED, Audited, _subject, continuous_noise
from tests.federations import small_config

PRIVATE = {
    "privacy__mechanism": "gaussian",
    "privacy__sampling_probability": 0.5,
    "privacy__epsilon": 3.0,
    "rounds": 4,
    "attention__every": 0,
}


CLAIM = Claim(3.0, 1e-5)


def audited(*findings, claim=CLAIM):
    return Audited("run", "gaussian noise at each site", claim, 1.5, 40, findings)


SOUND = Finding("canaries", "lower bound on ε", 0.5, (0.5, math.inf), 0.0, 3.0, 500)
FALSE = Finding("canaries", "lower bound on ε", 4.6, (4.6, math.inf), 0.0, 3.0, 500)


def test_the_claim_is_that_of_the_whole_training():
    config = small_config(**PRIVATE)
    subject, noise, claim = _subject(config, 10, 1, broken=1.0)
    steps = Repeated(PoissonSampled(0.5, Gaussian(noise)), 2 * 4)
    assert claim.epsilon == pytest.approx(cost([steps], 1e-5).epsilon)
    assert claim.epsilon <= 3.0
    assert len(set(subject.data.patients.tolist())) == 10
    assert {name.split("/")[0] for name in subject.data.patients.tolist()} <= {
        "north", "harbour", "university", "valley", "lakeside", "island"
    }  # fmt: skip


def test_a_broken_mechanism_claims_the_same_and_adds_less():
    config = small_config(**PRIVATE)
    rows = np.zeros((0, 4000))
    spread = []
    for broken in (1.0, 10.0):
        subject, _, claim = _subject(config, 10, 1, broken)
        spread.append(subject.gradient.private_sum(rows).std())
        assert claim.epsilon <= 3.0
    assert spread[0] / spread[1] == pytest.approx(10, rel=0.1)


def test_shares_are_audited_as_the_noise_that_they_approach():
    shares = {"privacy__mechanism": "skellam", "privacy__placement": "distributed", "secure_aggregation__enabled": True}
    noise = continuous_noise(small_config(**{**PRIVATE, **shares}))
    assert cost([Repeated(PoissonSampled(0.5, Gaussian(noise)), 4)], 1e-5).epsilon <= 3.0


def test_a_run_without_privacy_claims_nothing():
    subject, noise, claim = _subject(small_config(), 10, 1, broken=1.0)
    assert (noise, claim) == (0.0, UNPROTECTED)
    assert subject.gradient.private_sum(np.ones((3, 2))).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("finding", "said", "code"), [(SOUND, "No attack went", 0), (FALSE, "canaries went beyond", 5)]
)
def test_the_command_ends_as_the_claim_does(finding, said, code, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "audit_run", lambda *arguments: audited(finding))
    found = CliRunner().invoke(app, ["privacy", "audit", str(tmp_path), "--out", str(tmp_path / "out")])
    assert found.exit_code == code, found.output
    assert said in found.output
    assert "canaries" in (tmp_path / "out" / "findings.csv").read_text()
    assert said in (tmp_path / "out" / "audit.html").read_text()


def test_json_and_nothing_claimed(tmp_path, capsys):
    nothing = Finding("canaries", "lower bound on ε", 4.6, (4.6, math.inf), 0.0, math.inf, 500)
    assert not show_audit(audited(nothing, claim=UNPROTECTED), tmp_path, as_json=True)
    body = json.loads(capsys.readouterr().out)
    assert body["beyond_claim"] is False
    assert body["findings"][0]["verdict"] == "no-bound"
    show_audit(audited(nothing, claim=UNPROTECTED), tmp_path, as_json=False)
    assert "Nothing is claimed" in capsys.readouterr().out
