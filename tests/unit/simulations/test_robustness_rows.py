"""Rows of a study of corruptions, from numbers made by hand: roles, seeds, undefined sites, intervals, errors."""

import numpy as np
import pytest

from common.errors import DataError
from simulations.corrupted_site import MEANS, Judged, conditions
from simulations.corruption_error import corruption_errors
from simulations.robustness_rows import overall, pool, rows, summary

NAMES = ["ring", "crop"]
COUNT = len(conditions(NAMES))


def judged(clean: float, loss: float, spread: float = 0.01, seed: int = 0, reference: float | None = None) -> Judged:
    """A site whose metric falls by `loss` per severity of ring and by half of it of crop; 200 resamples."""
    steps = np.array([0, 0, 1, 2, 3, 4, 5, 0.5, 1, 1.5, 2, 2.5])
    value = np.repeat((clean - loss * steps)[:, None], 201, axis=1)
    value[:, 1:] += np.random.default_rng(seed).normal(0, spread, 200)  # an easy draw of patients is easy everywhere
    other = None if reference is None else np.repeat((clean - reference * steps)[:, None], 201, axis=1)
    return Judged(value, value.clip(0, 1), dict.fromkeys(MEANS, steps / 10), other, 30)


def test_the_loss_is_paired_so_that_easy_and_hard_patients_cancel():
    pooled = pool("source", [[judged(0.9, 0.04)]])
    for row in rows(pooled, NAMES, "auroc"):
        assert row["drop_low"] == pytest.approx(row["drop"])
        assert row["drop_high"] == pytest.approx(row["drop"])
        assert row["as_js_high"] - row["as_js_low"] > 0.02
    [ring, crop] = summary(pooled, NAMES, "auroc")
    assert (ring["corruption"], ring["drop"]) == ("ring", pytest.approx(0.12))
    assert ring["relative_robustness"] == pytest.approx(1 - 0.12 / 0.4)
    assert crop["drop"] == pytest.approx(0.06)
    whole = overall(pooled, NAMES, "auroc")
    assert whole["drop"] == pytest.approx(0.09)
    assert whole["clean_low"] < 0.9 < whole["clean_high"]
    assert whole["mas"] == pytest.approx(0.81)


def test_seeds_are_drawn_anew_so_that_training_shows_in_the_interval():
    pooled = pool("source", [[judged(0.9, 0.02)], [judged(0.9, 0.06)]])
    [worst, *_] = [row for row in rows(pooled, NAMES, "auroc") if row["severity"] == 5]
    assert worst["drop"] == pytest.approx(0.2)
    assert worst["drop_low"] == pytest.approx(0.1)
    assert worst["drop_high"] == pytest.approx(0.3)


def test_a_site_without_a_metric_is_left_out_of_it_and_stays_in_the_rest():
    lacking = judged(0.5, 0.04)
    lacking = Judged(lacking.value * np.nan, lacking.stable * 0, lacking.means, None, 30)
    pooled = pool("held-out", [[judged(0.9, 0.04), lacking]])
    row = rows(pooled, NAMES, "auroc")[1]
    assert (row["drop"], row["as_js"], row["defined"]) == (pytest.approx(0.04), pytest.approx(0.43), 1)
    alone = overall(pool("held-out", [[lacking]]), NAMES, "auroc")
    assert np.isnan([alone["clean"], alone["drop"], alone["drop_low"]]).all()
    assert (alone["defined"], alone["mas"]) == (0, 0)


def test_a_metric_of_which_less_is_better_is_lost_upwards():
    pooled = pool("source", [[judged(0.1, -0.02, reference=-0.01)]])
    assert summary(pooled, NAMES, "brier")[0]["drop"] == pytest.approx(0.06)
    assert summary(pooled, NAMES, "brier")[0]["relative_ce"] == pytest.approx(2.0)


def test_errors_by_hand_and_what_cannot_be_divided_by_is_left_out():
    pooled = pool("source", [[judged(0.9, 0.04, 0.0, reference=0.02)]])
    found = {row["corruption"]: row for row in summary(pooled, NAMES, "auroc")}
    # Σ (0.1 + 0.04 s) over s = 1..5 is 1.1; of the reference 0.8.
    assert found["ring"]["ce"] == pytest.approx(1.1 / 0.8)
    assert found["ring"]["relative_ce"] == pytest.approx(2.0)
    whole = overall(pooled, NAMES, "auroc")
    assert whole["mce"] == pytest.approx((1.1 / 0.8 + 0.8 / 0.65) / 2)
    faint = pool("source", [[judged(0.9, 0.04, 0.0, reference=0.002)]])
    # The reference loses 0.03 to ring and 0.015 to crop, summed over severities.
    found = {row["corruption"]: row for row in summary(faint, NAMES, "auroc")}
    assert found["ring"]["relative_ce"] == pytest.approx(20.0)
    assert (found["crop"]["relative_ce_excluded"], found["ring"]["relative_ce_excluded"]) == (True, False)
    assert np.isnan(found["crop"]["relative_ce"])
    whole = overall(faint, NAMES, "auroc")
    assert whole["relative_mce"] == pytest.approx(20.0)
    assert (whole["relative_ce_excluded"], whole["ce_excluded"]) == ("crop", "")


def test_a_corruption_that_helps_the_reference_has_no_ratio():
    found = corruption_errors(np.full((2, 5, 3), 0.1), np.full((2, 5, 3), -0.001))
    assert found.excluded.all()
    assert np.isnan(found.each).all()
    assert np.isnan(found.mean).all()
    with pytest.raises(DataError, match="judge both models on the same corrupted images"):
        corruption_errors(np.zeros((2, 5, 3)), np.zeros((2, 4, 3)))
