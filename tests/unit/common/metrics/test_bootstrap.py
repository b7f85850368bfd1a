"""The bootstrap against what theory says: standard error of a mean, DeLong, and what clusters may not hide."""

import numpy as np
import pytest

from common.metrics.base import Classified, take
from common.metrics.bootstrap import interval, over_seeds, resample_weights
from common.metrics.calibration import Brier
from common.metrics.classification import Auroc


def delong_variance(scores: np.ndarray, positive: np.ndarray) -> float:
    """DeLong et al. 1988, eq. 3 to 6, as two variances of placement values."""
    wins = np.sign(scores[positive][:, None] - scores[~positive]) / 2 + 0.5
    return float(wins.mean(axis=1).var(ddof=1) / positive.sum() + wins.mean(axis=0).var(ddof=1) / (~positive).sum())


def drawn(count: int, seed: int) -> Classified:
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.4).astype(np.int64)
    probabilities = 1 / (1 + np.exp(-rng.normal(size=count) - labels))
    return Classified(probabilities[:, None], labels, np.array([f"p{i}" for i in range(count)]))


def test_every_resample_draws_as_many_patients_as_there_are_and_takes_them_whole() -> None:
    patients = np.array(["a", "b", "b", "c", "a", "b"])
    weights = resample_weights(patients, 50, seed=1)
    assert weights.shape == (50, 6)
    assert (weights[:, [0]] == weights[:, [4]]).all()
    assert (weights[:, [1]] == weights[:, [2, 5]]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_counts_are_multinomial() -> None:
    """Variance of a count is P · 1/P · (1 - 1/P); two counts correlate by -1/(P - 1)."""
    counts = resample_weights(np.array(["a", "b", "c", "d"]), 40_000, seed=2)
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.02)
    np.testing.assert_allclose(np.cov(counts.T), np.eye(4) - 1 / 4, atol=0.02)


def test_the_same_patients_give_the_same_resamples_in_any_order() -> None:
    """So two methods on one site are compared in pairs."""
    patients = np.array(["b", "a", "c", "a"])
    order = np.array([3, 0, 2, 1])
    weights = resample_weights(patients, 9, seed=3)
    np.testing.assert_array_equal(weights[:, order], resample_weights(patients[order], 9, seed=3))
    assert not np.array_equal(weights, resample_weights(patients, 9, seed=4))


def test_interval_of_a_mean_has_the_analytic_width() -> None:
    data = drawn(400, 5)
    low, high = interval(Brier().value(data, resample_weights(data.patients, 4000, seed=5)))
    scores = (data.probabilities[:, 0] - data.labels) ** 2
    assert high - low == pytest.approx(2 * 1.96 * scores.std(ddof=1) / 20, rel=0.05)


@pytest.mark.parametrize("seed", [6, 7, 8])
def test_auroc_varies_as_delong_says(seed: int) -> None:
    data = drawn(500, seed)
    resampled = Auroc().value(data, resample_weights(data.patients, 2000, seed))
    expected = delong_variance(data.probabilities[:, 0], data.labels == 1)
    assert resampled.std() == pytest.approx(np.sqrt(expected), rel=0.10)


def test_repeated_images_of_a_patient_do_not_shrink_the_interval() -> None:
    once = drawn(120, 9)
    fourfold = take(once, np.arange(120).repeat(4))
    intervals = [interval(Auroc().value(data, resample_weights(data.patients, 500, 9))) for data in (once, fourfold)]
    assert intervals[0] == pytest.approx(intervals[1], abs=1e-12)


def test_images_taken_for_patients_would_shrink_it() -> None:
    """What the cluster bootstrap is for: four copies counted as four patients halve the width."""
    fourfold = take(drawn(120, 9), np.arange(120).repeat(4))
    widths = []
    for patients in (fourfold.patients, np.arange(480).astype(str)):
        low, high = interval(Auroc().value(fourfold, resample_weights(patients, 1000, 9)))
        widths.append(high - low)
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.05)


def test_paired_difference_is_narrower_than_unpaired() -> None:
    first = drawn(300, 10)
    noise = np.random.default_rng(10).normal(scale=0.01, size=(300, 1))
    second = Classified(np.clip(first.probabilities + noise, 0, 1), first.labels, first.patients)
    same, other = resample_weights(first.patients, 1000, 1), resample_weights(first.patients, 1000, 2)
    paired = interval(Auroc().value(first, same) - Auroc().value(second, same))
    unpaired = interval(Auroc().value(first, same) - Auroc().value(second, other))
    assert paired[1] - paired[0] < 0.2 * (unpaired[1] - unpaired[0])


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Brier score of 200 sites of 60 patients, two images each that share their error."""
    rng = np.random.default_rng(11)
    hits = 0
    for site in range(200):
        error = rng.uniform(size=60).repeat(2)
        data = Classified(error[:, None], np.zeros(120, np.int64), np.arange(60).repeat(2).astype(str))
        low, high = interval(Brier().value(data, resample_weights(data.patients, 400, site)))
        hits += low <= 1 / 3 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_interval_is_percentiles_of_what_is_defined() -> None:
    values = np.append(np.linspace(0, 1, 1001), np.full(100, np.nan))
    assert interval(values) == pytest.approx((0.025, 0.975))


@pytest.mark.parametrize("values", [np.array([]), np.full(10, np.nan), np.array([0.5] * 7 + [np.nan] * 3)])
def test_too_few_defined_values_give_no_interval(values: np.ndarray) -> None:
    assert np.isnan(interval(values)).all()


def test_one_patient_or_one_positive_patient_gives_no_interval() -> None:
    data = drawn(40, 12)
    alone = Classified(data.probabilities, data.labels, np.full(40, "a"))
    rare = Classified(data.probabilities, (np.arange(40) == 3).astype(np.int64), data.patients)
    for predictions in (alone, rare):
        weights = resample_weights(predictions.patients, 1000, 12)
        assert np.isnan(interval(Auroc().value(predictions, weights))).all()


def test_over_seeds_adds_the_variance_of_training() -> None:
    """Var = patients' + seeds' · (S - 1)/S / S, for values that are a sum of both."""
    rng = np.random.default_rng(13)
    patients, seeds = rng.normal(size=20_000), np.array([-3.0, 0.0, 3.0])
    values = patients + seeds[:, None]
    assert over_seeds(values, rng).var() == pytest.approx(1 + seeds.var() / 3, rel=0.03)
    np.testing.assert_allclose(over_seeds(values[:1], rng), values[0])


def test_over_seeds_keeps_undefined_resamples_undefined() -> None:
    values = np.array([[0.1, np.nan], [0.3, np.nan]])
    averaged = over_seeds(values, np.random.default_rng(0))
    assert 0.1 <= averaged[0] <= 0.3
    assert np.isnan(averaged[1])
