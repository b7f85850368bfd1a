"""Differences of areas: the textbook's variance by hand, the bootstrap's, and patients with several images."""

import numpy as np
import pytest

from common.metrics.bootstrap import resample_weights
from common.metrics.clustered_auroc import compare_auroc
from common.metrics.ranking import auroc


def _drawn(patients: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    names = np.repeat([f"p{number}" for number in range(patients)], each)
    own = np.repeat(random.normal(size=patients), each)
    positive = np.repeat(random.random(patients) < 0.4, each)
    truth = positive + 0.7 * own
    first = truth + random.normal(size=len(names))
    second = truth + 1.6 * random.normal(size=len(names))
    return first, second, positive, names


def test_one_image_a_patient_is_delongs_variance_written_with_covariance_matrices() -> None:
    """Formula of the 1988 paper: cov(V10)/m + cov(V01)/n, and the contrast (1, −1) of it."""
    first, second, positive, names = _drawn(120, 1)
    v10, v01 = [], []
    for scores in (first, second):
        wins = (scores[positive][:, None] > scores[~positive][None]) + 0.5 * (
            scores[positive][:, None] == scores[~positive][None]
        )
        v10.append(wins.mean(axis=1))
        v01.append(wins.mean(axis=0))
    covariance = np.cov(v10) / positive.sum() + np.cov(v01) / (~positive).sum()
    contrast = np.array([1.0, -1.0])
    found = compare_auroc([first], [second], positive, names)
    # The mixed term of the clustered formula is zero when no patient has images of both kinds, up to the centring.
    assert found.error == pytest.approx(np.sqrt(contrast @ covariance @ contrast), rel=1e-9)
    assert found.difference == pytest.approx(np.mean(v10[0]) - np.mean(v10[1]))


@pytest.mark.parametrize(("patients", "each"), [(400, 1), (150, 4)])
def test_the_error_is_the_cluster_bootstraps_within_a_tenth(patients: int, each: int) -> None:
    first, second, positive, names = _drawn(patients, each, seed=3)
    weights = resample_weights(names, 2000, 1)
    drawn = auroc(first, positive, weights) - auroc(second, positive, weights)
    assert compare_auroc([first], [second], positive, names).error == pytest.approx(drawn.std(ddof=1), rel=0.1)


def test_images_taken_for_patients_would_be_too_sure() -> None:
    random = np.random.default_rng(5)
    first, second, positive, names = _drawn(80, 1)
    rows = np.repeat(np.arange(80), 6)
    scores = [each[rows] + 0.01 * random.normal(size=len(rows)) for each in (first, second)]
    kept = compare_auroc([scores[0]], [scores[1]], positive[rows], names[rows]).error
    split = compare_auroc([scores[0]], [scores[1]], positive[rows], np.arange(len(rows)).astype(str)).error
    assert kept == pytest.approx(compare_auroc([first], [second], positive, names).error, rel=0.1)
    assert split < 0.6 * kept


def test_seeds_are_averaged_and_their_order_is_nothing() -> None:
    first, second, positive, names = _drawn(100, 2)
    both = compare_auroc([first, second], [second, first], positive, names)
    assert both.difference == pytest.approx(0)
    one = compare_auroc([first, first], [second], positive, names)
    assert one.error == pytest.approx(compare_auroc([first], [second], positive, names).error)


def test_equal_scores_have_p_one_and_one_class_has_none() -> None:
    first, _, positive, names = _drawn(50, 1)
    assert compare_auroc([first], [first], positive, names).p == 1.0
    assert np.isnan(compare_auroc([first], [first], np.zeros(50, bool), names).p)
    assert np.isnan(compare_auroc([first[:3]], [first[:3]], np.array([True, False, False]), names[:3]).p)


def test_p_is_uniform_where_nothing_differs() -> None:
    """Two models equally good: p below .05 in about 5 % of studies."""
    found = []
    for seed in range(400):
        random = np.random.default_rng(seed)
        positive = np.arange(60) < 25
        base = positive + random.normal(size=60)
        first, second = base + random.normal(size=60), base + random.normal(size=60)
        found.append(compare_auroc([first], [second], positive, np.arange(60).astype(str)).p)
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09
