"""Against scikit-learn, against slow twins, and at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve

from common.metrics import ranking
from common.metrics.base import Classified
from common.metrics.classification import Auroc, BalancedAccuracy, SensitivityAtSpecificity


def classified(probabilities: np.ndarray, labels: np.ndarray) -> Classified:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    probabilities = probabilities[:, None] if probabilities.ndim == 1 else probabilities
    return Classified(probabilities, labels, np.arange(len(labels)).astype(str))


def slow_sensitivity(labels: np.ndarray, scores: np.ndarray) -> float:
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(true[1 - false >= 0.90 - 1e-12].max())


scored = st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@given(scored)
def test_binary_metrics_equal_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([row[0] / 10 for row in rows]), np.array([int(row[1]) for row in rows])
    data = classified(scores, labels)
    assert Auroc().value(data)[0] == pytest.approx(roc_auc_score(labels, scores))
    assert SensitivityAtSpecificity().value(data)[0] == pytest.approx(slow_sensitivity(labels, scores))
    assert BalancedAccuracy().value(data)[0] == pytest.approx(balanced_accuracy_score(labels, scores >= 0.5))


@given(scored, st.integers(0, 2**32))
def test_weighted_auroc_equals_scikit_learn(rows: list[tuple[int, bool]], seed: int) -> None:
    scores, labels = np.array([row[0] / 10 for row in rows]), np.array([int(row[1]) for row in rows])
    weights = np.random.default_rng(seed).random((3, len(rows))) + 0.01
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(Auroc().value(classified(scores, labels), weights), expected, rtol=1e-9)


def test_multiclass_is_macro_one_against_the_rest() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    odds = np.exp(rng.normal(size=(200, 4)) + np.eye(4)[labels])
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    data = classified(probabilities, labels)
    one_rest = [slow_sensitivity(labels == k, probabilities[:, k]) for k in range(4)]
    assert Auroc().value(data)[0] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert SensitivityAtSpecificity().value(data)[0] == pytest.approx(np.mean(one_rest))
    assert BalancedAccuracy().value(data)[0] == pytest.approx(balanced_accuracy_score(labels, probabilities.argmax(1)))


def test_multilabel_is_the_mean_over_labels_with_both_kinds() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((150, 4)) < [0.5, 0.2, 0.8, 0.0]).astype(np.uint8)
    probabilities = np.clip(labels * 0.2 + rng.random((150, 4)) * 0.8, 0, 1)
    data, usable = classified(probabilities, labels), range(3)
    pairs = [(labels[:, k], probabilities[:, k]) for k in usable]
    assert Auroc().value(data)[0] == pytest.approx(np.mean([roc_auc_score(*pair) for pair in pairs]))
    assert SensitivityAtSpecificity().value(data)[0] == pytest.approx(np.mean([slow_sensitivity(*p) for p in pairs]))
    accuracies = [balanced_accuracy_score(truth, scores >= 0.5) for truth, scores in pairs]
    assert BalancedAccuracy().value(data)[0] == pytest.approx(np.mean(accuracies))


@pytest.mark.parametrize("metric", [Auroc(), BalancedAccuracy(), SensitivityAtSpecificity()])
@pytest.mark.parametrize("labels", [np.zeros(5, np.int64), np.ones(5, np.int64), np.ones((5, 1), np.uint8)])
def test_one_class_only_is_undefined(metric: Auroc, labels: np.ndarray) -> None:
    data = classified(np.linspace(0.1, 0.9, 5), labels)
    assert np.isnan(metric.value(data)[0])
    assert np.isnan(metric.pooled(metric.sums(data)))


def test_one_class_only_is_undefined_in_that_resample_alone() -> None:
    data = classified(np.array([0.1, 0.9, 0.2]), np.array([0, 1, 0]))
    weights = np.array([[1.0, 0, 1], [1, 1, 1]])
    for metric in (Auroc(), BalancedAccuracy(), SensitivityAtSpecificity()):
        np.testing.assert_array_equal(metric.value(data, weights), [np.nan, 1])


@given(scored)
def test_histograms_give_the_curve_of_binned_scores(rows: list[tuple[int, bool]]) -> None:
    """AUROC of equal scores is exact; the sensitivity lies on the line between two points of scikit-learn's curve."""
    scores, labels = np.array([row[0] / 10 for row in rows]), np.array([int(row[1]) for row in rows])
    data = classified(scores, labels)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    last = np.flatnonzero(false <= 0.1 + 1e-12)[-1]
    expected = np.interp(0.1, false[last : last + 2], true[last : last + 2])
    assert Auroc().pooled(Auroc().sums(data)) == pytest.approx(roc_auc_score(labels, scores))
    sensitivity = SensitivityAtSpecificity()
    assert sensitivity.pooled(sensitivity.sums(data)) == pytest.approx(expected)


@pytest.mark.parametrize(("centre", "spread"), [(0.0, 2.0), (0.0, 0.1), (-2.0, 0.1), (-9.0, 1.0), (22.0, 2.0)])
def test_pooled_stays_within_its_resolution(centre: float, spread: float) -> None:
    """Also for a model that has learnt nothing yet (0 ± 0.1 logit) or is far too sure (22 ± 2)."""
    rng = np.random.default_rng(2)
    labels = (rng.random(20_000) < 0.3).astype(np.int64)
    probabilities = 1 / (1 + np.exp(-(centre + spread * (rng.normal(size=20_000) + 1.2 * labels))))
    data = classified(probabilities, labels)
    for metric in (Auroc(), SensitivityAtSpecificity()):
        assert metric.pooled(metric.sums(data)) == pytest.approx(metric.value(data)[0], abs=metric.resolution)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_score_bins_keep_the_order(probabilities: list[float]) -> None:
    ordered = ranking.score_bins(np.sort(np.array(probabilities)))
    assert (np.diff(ordered) >= 0).all()
    assert 0 <= ordered[0] <= ordered[-1] < ranking.BINS


def test_score_bins_tell_tiny_probabilities_apart() -> None:
    assert len(set(ranking.score_bins(10.0 ** -np.arange(1, 38)))) == 37


@settings(max_examples=30)
@given(scored, st.integers(0, 2**32))
def test_chunks_do_not_show(rows: list[tuple[int, bool]], seed: int) -> None:
    scores, labels = np.array([row[0] / 10 for row in rows]), np.array([bool(row[1]) for row in rows])
    weights = np.random.default_rng(seed).random((7, len(rows)))
    whole = ranking.auroc(scores, labels, weights), ranking.sensitivity_at(scores, labels, weights, 0.9)
    patch = pytest.MonkeyPatch()
    patch.setattr(ranking, "CELLS", 2 * len(rows))
    parts = ranking.auroc(scores, labels, weights), ranking.sensitivity_at(scores, labels, weights, 0.9)
    patch.undo()
    np.testing.assert_allclose(whole, parts, rtol=1e-12)
