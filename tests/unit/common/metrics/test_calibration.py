"""Calibration against scikit-learn, a slow twin and a calculation by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from common.metrics.base import Classified, Segmented, concatenate
from common.metrics.calibration import Brier, ExpectedCalibrationError, bin_index, reliability


def binary(probabilities: np.ndarray, labels: np.ndarray) -> Classified:
    return Classified(np.asarray(probabilities, float)[:, None], labels, np.arange(len(labels)).astype(str))


def drawn(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    odds = np.exp(rng.normal(size=(count, classes)) + np.eye(classes)[labels])
    return odds / odds.sum(axis=1, keepdims=True), labels


def slow_ece(confidence: np.ndarray, outcome: np.ndarray) -> float:
    total = 0.0
    for low in range(15):
        upper = confidence <= 1 if low == 14 else confidence < (low + 1) / 15
        inside = (confidence >= low / 15) & upper
        if inside.any():
            total += inside.mean() * abs(outcome[inside].mean() - confidence[inside].mean())
    return total


def test_by_hand() -> None:
    """0.1 and 0.12 share the second bin: |1/2 - 0.11| · 2/3; 0.95 is alone: |1 - 0.95| · 1/3."""
    data = binary(np.array([0.10, 0.12, 0.95]), np.array([0, 1, 1]))
    assert ExpectedCalibrationError().value(data)[0] == pytest.approx(2 / 3 * 0.39 + 0.05 / 3)
    assert Brier().value(data)[0] == pytest.approx((0.01 + 0.88**2 + 0.05**2) / 3)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_binary_equals_slow_twin_and_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    probabilities, labels = np.array([row[0] for row in rows]), np.array([int(row[1]) for row in rows])
    data = binary(probabilities, labels)
    assert Brier().value(data)[0] == pytest.approx(brier_score_loss(labels, probabilities, labels=[0, 1]))
    assert ExpectedCalibrationError().value(data)[0] == pytest.approx(slow_ece(probabilities, labels), abs=1e-9)


def test_multiclass_uses_the_top_class_and_all_classes() -> None:
    probabilities, labels = drawn(300, 4, 0)
    data = Classified(probabilities, labels, np.arange(300).astype(str))
    top = slow_ece(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
    assert ExpectedCalibrationError().value(data)[0] == pytest.approx(top)
    assert Brier().value(data)[0] == pytest.approx(brier_score_loss(labels, probabilities))


def test_multilabel_is_the_mean_over_labels() -> None:
    rng = np.random.default_rng(1)
    labels, probabilities = (rng.random((200, 3)) < 0.3).astype(np.uint8), rng.random((200, 3))
    data = Classified(probabilities, labels, np.arange(200).astype(str))
    columns = [(probabilities[:, k], labels[:, k]) for k in range(3)]
    assert ExpectedCalibrationError().value(data)[0] == pytest.approx(
        np.mean([slow_ece(*column) for column in columns])
    )
    assert Brier().value(data)[0] == pytest.approx(np.mean([brier_score_loss(y, p) for p, y in columns]))


def test_a_calibrated_model_has_little_error_and_an_overconfident_one_much() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(50_000)
    labels = (rng.random(50_000) < truth).astype(np.int64)
    sure = 1 / (1 + (1 / truth - 1) ** 3)
    assert ExpectedCalibrationError().value(binary(truth, labels))[0] < 0.01
    assert ExpectedCalibrationError().value(binary(sure, labels))[0] > 0.1


def test_reliability_equals_scikit_learn() -> None:
    probabilities, labels = drawn(500, 2, 3)
    curve = reliability(binary(probabilities[:, 1], labels))
    frequency, confidence = calibration_curve(labels, probabilities[:, 1], n_bins=15)
    full = curve.count > 0
    np.testing.assert_allclose(curve.frequency[full], frequency)
    np.testing.assert_allclose(curve.confidence[full], confidence)
    np.testing.assert_allclose(curve.centre, np.arange(1, 30, 2) / 30)
    assert curve.count.sum() == 500


def test_reliability_of_empty_bins_is_nan_in_silence() -> None:
    curve = reliability(binary(np.array([0.5, 0.52]), np.array([0, 1])))
    assert np.isnan(curve.frequency).sum() == np.isnan(curve.confidence).sum() == 14
    assert curve.frequency[7] == 0.5


def test_reliability_of_sites_and_of_segmentations_adds() -> None:
    counts = np.zeros((2, 15, 3))
    counts[0, 14], counts[1, 14] = (10, 9.8, 9), (30, 29.0, 30)
    none, pixels = np.full((2, 1), np.nan), np.ones((2, 1), np.int64)
    data = Segmented(pixels, pixels, pixels, none, counts, np.array([0.1, 0.3]), np.array(["a", "b"]))
    curve = reliability(concatenate([data, data]))
    assert (curve.count[14], curve.frequency[14]) == (80, pytest.approx(39 / 40))
    assert ExpectedCalibrationError().value(data)[0] == pytest.approx(0.2 / 40)
    assert Brier().value(data)[0] == pytest.approx(0.2)


def test_bin_edges() -> None:
    np.testing.assert_array_equal(bin_index(np.array([0, 1 / 15, 0.999, 1])), [0, 1, 14, 14])
