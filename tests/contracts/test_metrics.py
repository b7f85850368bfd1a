"""What every metric promises, on the predictions of every task that lists it."""

import numpy as np
import pytest

from common.metrics import METRICS
from common.metrics.base import Classified, Metric, Predictions, Segmented, concatenate, take
from common.tasks import TASKS

CASES = [(metric, task) for metric in METRICS for task in TASKS if metric in TASKS.load(task).metrics]
PREVALENCE = 0.3


def draw(task: str, count: int, seed: int) -> Predictions:
    """Predictions that are better than chance and far from perfect."""
    rng = np.random.default_rng(seed)
    patients = np.array([f"p{seed}-{i // 2}" for i in range(count)])
    if task == "segmentation":
        return draw_masks(rng, count, patients)
    if task == "multiclass":
        labels = rng.choice(3, count, p=[0.5, 0.3, 0.2])
        logits = rng.normal(size=(count, 3)) + 1.5 * np.eye(3)[labels]
        odds = np.exp(logits)
        return Classified(odds / odds.sum(axis=1, keepdims=True), labels.astype(np.int64), patients)
    columns = 4 if task == "multilabel" else 1
    labels = rng.random((count, columns)) < PREVALENCE
    probabilities = 1 / (1 + np.exp(2 - rng.normal(size=labels.shape) * 2 - 3 * labels))
    shaped = labels.astype(np.uint8) if task == "multilabel" else labels[:, 0].astype(np.int64)
    return Classified(probabilities, shaped, patients)


def draw_masks(rng: np.random.Generator, count: int, patients: np.ndarray) -> Segmented:
    truth = rng.integers(0, 40, (count, 2)) * (rng.random((count, 2)) < 0.7)
    overlap = (truth * rng.random((count, 2))).astype(np.int64)
    predicted = overlap + rng.integers(0, 9, (count, 2))
    defined = (truth > 0) & (predicted > 0)
    pixels = rng.integers(0, 50, (count, 15))
    bins = np.stack([pixels, pixels * np.linspace(0.05, 0.95, 15), pixels * rng.random((count, 15))], axis=-1)
    distance = np.where(defined, rng.random((count, 2)) * 9, np.nan)
    return Segmented(overlap, predicted, truth, distance, bins.astype(float), rng.random(count), patients)


@pytest.fixture(params=CASES, ids=[f"{metric}-{task}" for metric, task in CASES])
def case(request: pytest.FixtureRequest) -> tuple[Metric, str]:
    name, task = request.param
    return METRICS.load(name)(), task


def test_every_metric_is_in_some_task() -> None:
    assert {metric for metric, _ in CASES} == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_describes_itself(name: str) -> None:
    metric = METRICS.load(name)()
    assert metric.name == name
    assert metric.title
    assert isinstance(metric.higher_is_better, bool)


def test_value_lies_in_its_range_and_support_counts_images(case: tuple[Metric, str]) -> None:
    metric, task = case
    data = draw(task, 60, 0)
    value = metric.value(data)
    assert value.shape == (1,)
    assert 0 <= value[0] <= (np.inf if metric.name == "hd95" else 2 if metric.name == "brier" else 1)
    assert 0 < metric.support(data) <= 60


def test_weights_of_one_change_nothing(case: tuple[Metric, str]) -> None:
    metric, task = case
    data = draw(task, 60, 1)
    np.testing.assert_allclose(metric.value(data, np.ones((3, 60))), metric.value(data).repeat(3), rtol=1e-12)


def test_integer_weights_repeat_images(case: tuple[Metric, str]) -> None:
    metric, task = case
    data = draw(task, 60, 2)
    counts = np.random.default_rng(2).integers(0, 4, (5, 60))
    repeated = [metric.value(take(data, np.arange(60).repeat(row)))[0] for row in counts]
    np.testing.assert_allclose(metric.value(data, counts.astype(float)), repeated, rtol=1e-12)


def test_order_of_images_is_irrelevant(case: tuple[Metric, str]) -> None:
    metric, task = case
    data = draw(task, 60, 3)
    shuffled = take(data, np.random.default_rng(3).permutation(60))
    np.testing.assert_allclose(metric.value(shuffled), metric.value(data), rtol=1e-12)
    np.testing.assert_allclose(metric.sums(shuffled), metric.sums(data), rtol=1e-12)


def test_added_sums_are_the_metric_on_all_images(case: tuple[Metric, str]) -> None:
    metric, task = case
    sites = [draw(task, count, seed) for seed, count in enumerate((1500, 900, 40))]
    if metric.not_poolable:
        assert len(metric.sums(sites[0])) == 0
        return
    pooled = metric.pooled(sum(metric.sums(site) for site in sites))
    assert pooled == pytest.approx(metric.value(concatenate(sites))[0], abs=metric.resolution + 1e-12)


def test_undefined_is_nan_without_a_warning(case: tuple[Metric, str]) -> None:
    metric, task = case
    data = draw(task, 20, 4)
    assert np.isnan(metric.value(data, np.zeros((2, 20)))).all()
    assert np.isnan(metric.value(take(data, np.array([], dtype=np.int64))))
    assert np.isnan(metric.pooled(0 * metric.sums(data)))


def test_the_other_kind_of_predictions_is_refused(case: tuple[Metric, str]) -> None:
    metric, task = case
    other = draw("binary" if task == "segmentation" else "segmentation", 4, 5)
    if metric.name in TASKS.load("segmentation").metrics and metric.name in TASKS.load("binary").metrics:
        assert metric.value(other).shape == (1,)
    else:
        with pytest.raises(TypeError):
            metric.value(other)
