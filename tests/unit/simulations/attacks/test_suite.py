"""The whole suite on a small site: every attack of the table has its say, and protection changes what they find."""

import inspect
import math

import numpy as np
import pytest
import torch

from common.config import load_run_config
from common.models.build import build_model
from simulations.attacks import ATTACKS, gradient_search
from simulations.attacks.finding import Findings
from simulations.attacks.rehearsal import CASES, SETTINGS, Protection, subject
from simulations.attacks.suite import Effort, attack_site

pytestmark = pytest.mark.slow
SMALL = {
    **SETTINGS,
    "data.image-size": 16,
    "data.patients-per-site": 12,
    "model.width": 4,
    "train.local-epochs": 1,
    "train.learning-rate": 0.01,
}
LITTLE = Effort(canaries=100, shadows=4, cohorts=(10,), draws=10, victims=2, pooled=10)


@pytest.fixture(scope="module")
def found():
    config = load_run_config(SMALL)
    with pytest.MonkeyPatch.context() as patch:  # whether the search finds much is tested beside it
        patch.setattr(gradient_search, "STEPS", 5)
        patch.setattr(gradient_search, "POLISH", 2)
        return {name: attack_site(subject(config, CASES[name]), LITTLE, seed=3) for name in ("none", "private")}


def test_every_attack_finds_something(found):
    names = {each.name.split()[0] for each in found["none"]}
    assert names == set(ATTACKS)
    for findings in found.values():
        for each in findings:
            assert each.interval[0] <= each.success <= each.interval[1]
            assert each.samples > 0


def test_without_a_claim_nothing_is_bounded_and_under_one_nothing_is_exceeded(found):
    assert {each.verdict for each in found["none"]} == {"no-bound"}
    assert "exceeds" not in {each.verdict for each in found["private"]}
    assert all(each.claimed_bound < math.inf for each in found["private"] if each.measure == "lower bound on ε")


def test_a_transformer_without_protection_gives_its_images_away(found):
    near = {
        name: next(each for each in of if each.name == "inversion transformer" and "PSNR" in each.measure)
        for name, of in found.items()
    }
    assert near["none"].success > 30
    assert near["private"].details["best"] < 15


def test_rows_have_the_same_columns(found):
    rows = [each.row() for of in found.values() for each in of]
    assert len({tuple(row) for row in rows}) == 1


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_entry_of_the_table_gives_findings(name):
    assert inspect.signature(ATTACKS.load(name)).return_annotation == Findings


def test_the_broken_case_adds_a_tenth_of_the_noise_that_it_claims():
    config = load_run_config(SMALL)
    made = [subject(config, Protection(3.0, 1.0, divided)) for divided in (1.0, 10.0)]
    assert made[0].claim == made[1].claim
    spread = [np.std(each.signature.private_sum(np.zeros((0, 20_000)))) for each in made]
    assert spread[0] / spread[1] == pytest.approx(10, rel=0.05)
    torch.manual_seed(0)
    same = [build_model(config.model, 1, 1, 16, 5).state_dict(), made[0].build(5).state_dict()]
    assert all(torch.equal(same[0][key], same[1][key]) for key in same[0])
