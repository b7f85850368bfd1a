"""What every task promises."""

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import TaskSection, load_run_config
from common.data.base import Batch, Dataset
from common.errors import ConfigError, ConsiliumError, DataError, UnknownNameError
from common.metrics import METRICS
from common.metrics.base import Predictions
from common.tasks import TASKS
from common.tasks.base import Task
from common.tasks.build import build_task

CLASSES = ("normal", "benign", "malignant")
MASKS = ("background", "lesion", "vessel")


def settings(name: str, positive: str = "malignant") -> TaskSection:
    return load_run_config({"task.name": name, "task.positive": positive}).task


def dataset(name: str, count: int = 24, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    if name == "multilabel":
        labels = (rng.random((count, 3)) < 0.4).astype(np.uint8)
    return Dataset(
        name="drawn",
        images=rng.random((count, 1, 8, 8), dtype=np.float32),
        patients=np.array([f"p{i // 2}" for i in range(count)]),
        sites=np.zeros(count, np.int64),
        site_names=("a",),
        labels=labels,
        masks=rng.integers(0, 3, (count, 8, 8), dtype=np.uint8),
        classes=CLASSES,
        mask_classes=MASKS,
    ).check()


def logits_for(task: Task, name: str, count: int, seed: int = 1) -> Tensor:
    size = (8, 8) if name == "segmentation" else ()
    return torch.randn(count, task.outputs, *size, generator=torch.Generator().manual_seed(seed))


def whole(data: Dataset) -> Batch:
    return data.batch(np.arange(len(data)), torch.device("cpu"))


@pytest.fixture(params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def task(name: str) -> Task:
    return build_task(settings(name), CLASSES, MASKS)


@pytest.fixture
def data(name: str, task: Task) -> Dataset:
    return task.prepare(dataset(name))


def same(left: Predictions, right: Predictions) -> None:
    assert type(left) is type(right)
    for column in left.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(left, column), getattr(right, column))


def test_names_its_columns_and_metrics(name: str, task: Task, data: Dataset) -> None:
    predictions = task.collect([(task.probabilities(logits_for(task, name, len(data))), whole(data))], data.patients)
    columns = predictions.truth.shape[1] if name == "segmentation" else predictions.probabilities.shape[1]
    assert len(task.class_names) == columns
    for metric in task.metrics:
        assert np.isfinite(METRICS.load(metric)().value(predictions)).all()


def test_prepared_data_is_sound_and_prepared_once(task: Task, data: Dataset) -> None:
    assert data.check().digest() == task.prepare(data).digest()


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_falls_under_gradient_steps(name: str, task: Task, data: Dataset, weighted: bool) -> None:
    logits = logits_for(task, name, len(data)).requires_grad_()
    weights = torch.from_numpy(task.class_weights(data)) if weighted else None
    optimizer = torch.optim.Adam([logits], lr=0.5)
    losses = []
    for _ in range(40):
        loss = task.loss(logits, whole(data), weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 < losses[0]
    best = task.collect([(task.probabilities(logits.detach()), whole(data))], data.patients)
    assert METRICS.load(task.metrics[0])().value(best)[0] == pytest.approx(1.0)


def test_loss_is_a_float32_scalar_under_autocast(name: str, task: Task, data: Dataset) -> None:
    logits = logits_for(task, name, len(data)).bfloat16()
    weights = torch.from_numpy(task.class_weights(data))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, weighted = task.loss(logits, whole(data)), task.loss(logits, whole(data), weights)
    assert loss.dtype == weighted.dtype == torch.float32
    assert loss.shape == weighted.shape == ()
    torch.testing.assert_close(loss, task.loss(logits.float(), whole(data)))


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_gradient_is_finite_for_hopeless_logits(name: str, task: Task, data: Dataset, scale: float) -> None:
    logits = (scale * logits_for(task, name, len(data))).requires_grad_()
    task.loss(logits, whole(data)).backward()
    assert torch.isfinite(logits.grad).all()


def test_probabilities_lie_in_the_unit_interval(name: str, task: Task) -> None:
    logits = 50 * logits_for(task, name, 9)
    probabilities = task.probabilities(logits.bfloat16())
    assert probabilities.shape == logits.shape
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    if task.outputs > 1 and name != "multilabel":
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones_like(probabilities[:, 0]))


def test_collecting_batches_equals_collecting_at_once(name: str, task: Task, data: Dataset) -> None:
    probabilities = task.probabilities(logits_for(task, name, len(data)))
    pieces = [np.arange(0, 7), np.arange(7, 8), np.arange(8, len(data))]
    batches = ((probabilities[piece], data.batch(piece, torch.device("cpu"))) for piece in pieces)
    same(task.collect(batches, data.patients), task.collect([(probabilities, whole(data))], data.patients))


def test_a_patient_more_or_less_is_noticed(name: str, task: Task, data: Dataset) -> None:
    batches = [(task.probabilities(logits_for(task, name, len(data))), whole(data))]
    for patients in (data.patients[1:], np.append(data.patients, "x")):
        with pytest.raises(ValueError, match="patients"):
            task.collect(batches, patients)


def test_predictions_that_are_not_finite_are_refused(name: str, task: Task, data: Dataset) -> None:
    logits = logits_for(task, name, len(data))
    logits[3] = torch.nan
    with pytest.raises(ConsiliumError, match="not finite for 1 of 24"):
        task.collect([(task.probabilities(logits), whole(data))], data.patients)


def test_class_weights_have_mean_one_and_favour_the_rare(name: str, task: Task, data: Dataset) -> None:
    weights = task.class_weights(data)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.mean(axis=-1), 1, rtol=1e-6)
    counts = {
        "binary": lambda: np.bincount(data.labels, minlength=2),
        "multiclass": lambda: np.bincount(data.labels, minlength=3),
        "multilabel": lambda: np.stack([(data.labels == 0).sum(0), (data.labels == 1).sum(0)], axis=-1),
        "segmentation": lambda: np.bincount(data.masks.ravel(), minlength=3),
    }[name]()
    products = weights * counts
    np.testing.assert_allclose(products, np.broadcast_to(products.mean(axis=-1, keepdims=True), products.shape), 1e-5)


def test_data_without_the_target_is_refused(name: str, task: Task) -> None:
    data = dataset(name)
    bare = Dataset(name="bare", images=data.images, patients=data.patients, sites=data.sites, site_names=("a",))
    with pytest.raises(DataError, match=r"bare: there are no (labels|masks)"):
        task.prepare(bare)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'segmentation'"):
        build_task(settings("segmentatoin"), CLASSES, MASKS)


@pytest.mark.parametrize(
    ("name", "positive", "classes", "message"),
    [
        ("binary", "", CLASSES, "empty and the data set has 3 classes"),
        ("binary", "", (), "has no labels"),
        ("binary", "benign, malignent", CLASSES, "Did you mean 'malignant'"),
        ("multiclass", "", ("one",), "at least two"),
        ("multilabel", "", (), "names no finding"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name: str, positive: str, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_task(settings(name, positive), classes, ())
