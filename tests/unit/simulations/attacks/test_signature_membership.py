"""Tracing in signatures: against theory on made rows, against its claim, and rows against the site's own meter."""

import math

import numpy as np
import pytest

from common.attention.signature import SignatureMeter
from common.config import load_run_config
from common.data.base import Dataset
from common.errors import DataError
from common.models.build import build_model
from common.privacy.calibration import gaussian_noise_multiplier
from common.randomness import SecureRandom
from simulations.attacks import signature_membership as module
from simulations.attacks.claim import Claim
from simulations.attacks.private_sum import GaussianSum, plain_sum
from simulations.attacks.signature_membership import patient_rows, release_covariance, signature_membership

KEY = bytes(range(32))
NOTHING = Claim(math.inf, 0)
ENTRIES, PATIENTS = 100, 3000


def rows(patients=PATIENTS):
    return np.random.default_rng(0).standard_normal((patients, ENTRIES)) / ENTRIES**0.5


def theory(cohort, noise):
    """Rows have independent entries of variance 1/d. A member's score lies 1 above the others'; every score spreads by
    the square root of (n + n²/R + s² d) / d, for R known patients give the centre an error of its own: the area is
    Φ(gap / √2) (Dwork et al. 2015, section 3, with centre and noise added).
    """
    known = PATIENTS - 2 * cohort
    gap = math.sqrt(ENTRIES / (cohort + cohort**2 / known + noise**2 * ENTRIES))
    return 0.5 * (1 + math.erf(gap / 2))


@pytest.mark.parametrize("cohort", [10, 50, 200])
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_made_rows_are_traced_as_theory_says(cohort, noise):
    release = GaussianSum(100, noise / 100, SecureRandom(KEY)) if noise else plain_sum
    (finding,) = signature_membership(rows(), release, NOTHING, 0, (cohort,))
    standard_error = (finding.interval[1] - finding.interval[0]) / 3.92
    assert abs(finding.success - theory(cohort, noise)) < 4 * standard_error + 0.005
    assert finding.details["noise"] == pytest.approx(noise, rel=0.1)
    assert finding.verdict == "no-bound"


def test_rows_that_hang_together_are_traced_as_well_as_those_that_do_not():
    # An invertible map of all rows changes no likelihood ratio, so the weighting by W must undo it.
    mixed = rows() @ np.diag(np.linspace(0.5, 2.0, ENTRIES))
    straight, bent = (signature_membership(each, plain_sum, NOTHING, 0, (50,))[0].success for each in (rows(), mixed))
    assert bent == pytest.approx(straight, abs=0.02)


def test_the_plain_inner_product_finds_less(monkeypatch):
    uneven = rows() @ np.diag(np.linspace(0.1, 3.0, ENTRIES))
    (weighted,) = signature_membership(uneven, plain_sum, NOTHING, 0, (50,))
    monkeypatch.setattr(module, "release_covariance", lambda known, n, noise: np.eye(ENTRIES))
    (plain,) = signature_membership(uneven, plain_sum, NOTHING, 0, (50,))
    assert plain.interval[1] < weighted.interval[0]


@pytest.mark.parametrize("broken", [False, True])
def test_a_release_keeps_its_claim_and_a_tenth_of_the_noise_does_not(broken):
    noise = gaussian_noise_multiplier(0.5, 1e-5) / (10 if broken else 1)
    release = GaussianSum(1.0, noise, SecureRandom(KEY))
    findings = signature_membership(rows(600), release, Claim(0.5, 1e-5), 0, (10, 50), draws=30)
    assert [each.verdict for each in findings] == (["exceeds"] * 2 if broken else ["within"] * 2)
    assert not broken or min(each.success for each in findings) > 0.65


def test_the_covariance_of_a_release_is_measured():
    known = rows(400)
    drawn = np.random.default_rng(1)
    released = np.stack(
        [known[drawn.integers(400, size=30)].sum(axis=0) + 0.3 * drawn.standard_normal(ENTRIES) for _ in range(4000)]
    )
    expected = release_covariance(known, 30, 0.3)
    assert np.linalg.norm(np.cov(released.T) - expected) < 0.2 * np.linalg.norm(expected)


def test_too_few_patients_are_refused():
    with pytest.raises(DataError, match="too few"):
        signature_membership(rows(30), plain_sum, NOTHING, 0)


def test_rows_add_up_to_the_signature_of_the_site():
    drawn = np.random.default_rng(0)
    data = Dataset(
        name="made",
        images=drawn.integers(0, 256, (40, 1, 16, 16), dtype=np.uint8),
        patients=np.array([f"p{i % 9}" for i in range(40)]),
        sites=np.zeros(40, np.int64),
        site_names=("here",),
    )
    config = load_run_config({"model.name": "se-convnet", "model.width": 4})
    model = build_model(config.model, 1, 1, 16, seed=0)
    meter = SignatureMeter(model)
    meter.add(data.batch(np.arange(40), next(model.parameters()).device).images, data.patients)
    signature = meter.finish()
    names, both = patient_rows(model, data, squares=True)
    assert len(names) == 9
    assert np.allclose(both.sum(axis=0), np.concatenate([signature.total, signature.squares]), atol=1e-6)
