"""Scores of adapted models: the source's threshold against a search, resamples site by site, undefined stays so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.metrics.base import Classified
from common.metrics.bootstrap import resample_weights
from common.metrics.classification import Auroc
from common.seeds import derive
from simulations.adaptation.scores import RESAMPLED, Judge, columns, source_threshold


def said(probabilities: list[float], labels: list[int]) -> Classified:
    rows = np.array(probabilities)[:, None]
    return Classified(rows, np.array(labels), np.array([f"p{number // 2}" for number in range(len(rows))]))


def balanced(predictions: Classified, threshold: float) -> float:
    over = predictions.probabilities[:, 0] >= threshold
    ill = predictions.labels > 0
    return float((over[ill].mean() + (~over[~ill]).mean()) / 2)


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10**6))
def test_no_threshold_beats_that_of_the_source(count: int, seed: int) -> None:
    """Oracle: every threshold of a fine comb, tried one by one."""
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=count)
    labels[:2] = 0, 1
    predictions = said(random.integers(0, 11, count) / 10, labels.tolist())
    best = max(balanced(predictions, each) for each in np.linspace(-0.025, 1.025, 106))
    assert balanced(predictions, source_threshold(predictions)) == pytest.approx(best)


def test_of_equal_thresholds_the_one_nearest_a_half_is_taken() -> None:
    assert source_threshold(said([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])) == 0.5
    assert source_threshold(said([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])) == pytest.approx(0.25)


def test_without_two_classes_or_with_several_columns_there_is_no_threshold() -> None:
    assert np.isnan(source_threshold(said([0.1, 0.9], [1, 1])))
    several = Classified(np.full((4, 3), 1 / 3), np.arange(4) % 3, np.array(list("abcd")))
    assert np.isnan(source_threshold(several))
    scores = Judge(float("nan"), 10, 0).scores("post", several)
    assert np.isnan(scores["post_balanced_accuracy_source"])
    assert np.isfinite(scores["post_balanced_accuracy"])


def test_scores_by_hand() -> None:
    """At .5: sensitivity 1/2, specificity 1; at .35: 1 and 1. Brier ((.1)² + (.3)² + (.6)² + (.1)²) / 4."""
    judged = Judge(0.35, 10, 0).scores("online", said([0.1, 0.3, 0.4, 0.9], [0, 0, 1, 1]))
    assert judged["online_auroc"] == 1
    assert judged["online_balanced_accuracy"] == 0.75
    assert judged["online_balanced_accuracy_source"] == 1
    assert judged["online_brier"] == pytest.approx(0.47 / 4)
    assert set(judged) == {name for name in columns() if name.startswith("online")}


def test_one_class_is_undefined_and_never_zero() -> None:
    judge = Judge(0.5, 20, 0)
    found = judge.scores("post", said([0.1, 0.3, 0.4], [0, 0, 0]))
    assert np.isnan(found["post_auroc"])
    assert np.isnan(found["post_balanced_accuracy"])
    assert np.isfinite(found["post_ece"])
    resampled = judge.resampled("post", said([0.1, 0.3, 0.4, 0.2], [0, 0, 0, 0]), np.array(["a"] * 4))
    assert np.isnan(resampled["post_auroc"]).all()
    assert set(resampled) == {name for name in RESAMPLED if name.startswith("post")}


def test_each_site_draws_its_own_patients() -> None:
    """Oracle: the weights of both sites side by side."""
    random = np.random.default_rng(0)
    predictions = said(random.random(12).tolist(), [0, 1] * 6)
    sites = np.array(["a"] * 6 + ["b"] * 6)
    found = Judge(0.5, 50, 9).resampled("post", predictions, sites)["post_auroc"]
    weights = [
        resample_weights(predictions.patients[part], 50, derive(9, "bootstrap", site))
        for site, part in (("a", slice(0, 6)), ("b", slice(6, 12)))
    ]
    assert found == pytest.approx(Auroc().value(predictions, np.hstack(weights)), abs=1e-6)
    other = Judge(0.5, 50, 9).resampled("post", predictions, np.array(["a"] * 12))["post_auroc"]
    assert not np.allclose(found, other)
