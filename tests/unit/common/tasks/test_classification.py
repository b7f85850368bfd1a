"""Losses against torch's own, labels by name, and what each task refuses."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.config import TaskSection, load_run_config
from common.data.base import Batch, Dataset
from common.errors import ConfigError, DataError
from common.tasks.base import Task
from common.tasks.build import build_task
from common.tasks.targets import balanced

CLASSES = ("nevus", "keratosis", "melanoma")


def build(name: str, positive: str = "", classes: tuple[str, ...] = CLASSES) -> Task:
    settings: TaskSection = load_run_config({"task.name": name, "task.positive": positive}).task
    return build_task(settings, classes, ())


def labelled(labels: list, classes: tuple[str, ...] = CLASSES) -> Dataset:
    dtype = np.uint8 if isinstance(labels[0], list) else np.int64
    count = len(labels)
    return Dataset(
        name="few",
        images=np.zeros((count, 1, 2, 2), np.uint8),
        patients=np.arange(count).astype(str),
        sites=np.zeros(count, np.int64),
        site_names=("a",),
        labels=np.array(labels, dtype=dtype),
        classes=classes,
    )


def batch(labels: torch.Tensor) -> Batch:
    return Batch(images=torch.zeros(len(labels), 1, 2, 2), labels=labels, masks=None)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_binary_loss_is_torchs() -> None:
    logits, labels = drawn(6, 1), torch.tensor([0, 1, 1, 0, 0, 0])
    task = build("binary", classes=("no", "yes"))
    torch.testing.assert_close(
        task.loss(logits, batch(labels)), F.binary_cross_entropy(logits.sigmoid()[:, 0], labels.float())
    )


def test_weighted_binary_loss_is_two_class_cross_entropy() -> None:
    """A sigmoid of z is a softmax of (0, z); torch's weighted cross-entropy divides by the summed weights too."""
    logits, labels, weights = drawn(6, 1), torch.tensor([0, 1, 1, 0, 0, 0]), torch.tensor([0.5, 1.5])
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    expected = F.cross_entropy(both, labels, weight=weights)
    torch.testing.assert_close(build("binary", classes=("no", "yes")).loss(logits, batch(labels), weights), expected)


def test_multiclass_loss_is_torchs() -> None:
    logits, labels, weights = drawn(5, 3), torch.tensor([0, 2, 1, 1, 0]), torch.tensor([0.5, 1.0, 1.5])
    task = build("multiclass")
    expected = -logits.log_softmax(dim=1)[torch.arange(5), labels].mean()
    torch.testing.assert_close(task.loss(logits, batch(labels)), expected)
    torch.testing.assert_close(
        task.loss(logits, batch(labels), weights), F.cross_entropy(logits, labels, weight=weights)
    )


def test_multilabel_loss_is_the_mean_of_binary_ones() -> None:
    logits = drawn(5, 3)
    labels = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 1], [0, 0, 1]], dtype=torch.uint8)
    weights = torch.tensor([[0.5, 1.5], [0.2, 1.8], [1.0, 1.0]])
    plain, weighted = [], []
    single = build("binary", classes=("no", "yes"))
    for k in range(3):
        column = batch(labels[:, k].long())
        plain.append(single.loss(logits[:, [k]], column))
        weighted.append(single.loss(logits[:, [k]], column, weights[k]))
    task = build("multilabel")
    torch.testing.assert_close(task.loss(logits, batch(labels)), torch.stack(plain).mean())
    torch.testing.assert_close(task.loss(logits, batch(labels), weights), torch.stack(weighted).mean())


@pytest.mark.parametrize(
    ("positive", "expected", "names"),
    [
        ("melanoma", [0, 0, 1, 1], ("not melanoma", "melanoma")),
        ("melanoma, keratosis", [0, 1, 1, 1], ("nevus", "melanoma+keratosis")),
        ("nevus", [1, 0, 0, 0], ("not nevus", "nevus")),
    ],
)
def test_positive_classes_become_one(positive: str, expected: list[int], names: tuple[str, str]) -> None:
    task = build("binary", positive)
    prepared = task.prepare(labelled([0, 1, 2, 2]))
    assert prepared.labels.tolist() == expected
    assert prepared.classes == names
    assert task.class_names == names[1:]
    assert task.prepare(prepared).labels.tolist() == expected


def test_the_second_of_two_classes_is_positive_unless_said_otherwise() -> None:
    classes = ("healthy", "ill")
    assert build("binary", "", classes).prepare(labelled([0, 1, 1], classes)).labels.tolist() == [0, 1, 1]
    assert build("binary", "healthy", classes).prepare(labelled([0, 1, 1], classes)).labels.tolist() == [1, 0, 0]


def test_binary_of_findings_asks_for_any_positive_one() -> None:
    data = labelled([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1]])
    assert build("binary", "keratosis,melanoma").prepare(data).labels.tolist() == [0, 0, 1, 1]
    assert build("binary", "nevus,keratosis,melanoma").prepare(data).labels.tolist() == [0, 1, 1, 1]


def test_every_class_positive_is_refused_where_each_image_has_one() -> None:
    with pytest.raises(ConfigError, match="names every class"):
        build("binary", "nevus,keratosis,melanoma").prepare(labelled([0, 1, 2]))


def test_an_archive_with_another_order_of_classes_is_matched_by_name() -> None:
    turned, some = ("melanoma", "nevus", "keratosis"), ("melanoma", "nevus")
    assert build("multiclass").prepare(labelled([0, 1, 2], turned)).labels.tolist() == [2, 0, 1]
    assert build("multiclass").prepare(labelled([0, 1], some)).labels.tolist() == [2, 0]
    assert build("binary", "melanoma").prepare(labelled([0, 1, 2], turned)).labels.tolist() == [1, 0, 0]
    columns = build("multilabel").prepare(labelled([[1, 0, 0], [0, 1, 0]], turned))
    assert columns.labels.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert columns.classes == CLASSES


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("multiclass", labelled([0, 1], ("nevus", "wart"))),
        ("binary", labelled([0, 1], ("nevus", "wart"))),
        ("multilabel", labelled([[0, 1]], ("nevus", "melanoma"))),
        ("multilabel", labelled([0, 1, 2])),
        ("multiclass", labelled([[0, 1, 1]])),
    ],
)
def test_labels_that_do_not_fit_are_refused(name: str, data: Dataset) -> None:
    with pytest.raises(DataError, match="few: "):
        build(name, "melanoma").prepare(data)


def test_class_weights_by_hand() -> None:
    """Counts 1 and 3: inverse 1 and 1/3, mean 2/3. An absent class is neutral."""
    np.testing.assert_allclose(balanced(np.array([1, 3])), [1.5, 0.5])
    np.testing.assert_allclose(balanced(np.array([1, 0, 3])), [1.5, 1, 0.5])
    np.testing.assert_allclose(balanced(np.array([0, 0])), [1, 1])


def test_very_sure_images_keep_their_order() -> None:
    """In float32 a sigmoid of 20 is 1 already."""
    probabilities = build("binary", classes=("no", "yes")).probabilities(torch.tensor([[20.0], [25.0], [30.0]]))
    assert len(probabilities.unique()) == 3
