"""The segmentation loss against MONAI, empty slices, and the reduction to counts against slow twins."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor
from torch.nn import functional as F

from common.config import load_run_config
from common.data.base import Batch, Dataset
from common.errors import DataError
from common.metrics.calibration import Brier, ExpectedCalibrationError
from common.metrics.segmentation import Dice, hd95
from common.tasks.base import Task
from common.tasks.build import build_task
from common.tasks.segmentation import SMOOTH

ONE, THREE = ("background", "lesion"), ("background", "lesion", "vessel")


def build(mask_classes: tuple[str, ...]) -> Task:
    return build_task(load_run_config({"task.name": "segmentation"}).task, (), mask_classes)


def batch(masks: Tensor) -> Batch:
    return Batch(images=torch.zeros(len(masks), 1, *masks.shape[1:]), labels=None, masks=masks)


def drawn(task: Task, count: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and masks; the last mask is empty."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 1 + len(task.class_names), (count, 12, 10), generator=generator).to(torch.uint8)
    masks[-1] = 0
    return 2 * torch.randn(count, task.outputs, 12, 10, generator=generator), masks


def data_with(masks: np.ndarray, mask_classes: tuple[str, ...]) -> Dataset:
    return Dataset(
        name="slices",
        images=np.zeros((len(masks), 1, *masks.shape[1:]), np.uint8),
        patients=np.arange(len(masks)).astype(str),
        sites=np.zeros(len(masks), np.int64),
        site_names=("a",),
        masks=masks,
        mask_classes=mask_classes,
    )


def test_one_class_loss_equals_monai() -> None:
    task = build(ONE)
    logits, masks = drawn(task)
    target = masks[:, None].float()
    monai = DiceCELoss(sigmoid=True, batch=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    torch.testing.assert_close(task.loss(logits, batch(masks)), monai(logits, target))


def test_several_class_loss_equals_monai() -> None:
    task = build(THREE)
    logits, masks = drawn(task)
    labels = masks[:, None].long()
    dice = DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH
    )
    weights = torch.tensor([0.3, 1.2, 1.5])
    overlap = dice(logits, labels)
    torch.testing.assert_close(task.loss(logits, batch(masks)), overlap + F.cross_entropy(logits, masks.long()))
    expected = overlap + F.cross_entropy(logits, masks.long(), weight=weights)
    torch.testing.assert_close(task.loss(logits, batch(masks), weights), expected)


def test_weights_enter_the_cross_entropy_of_one_class() -> None:
    task, weights = build(ONE), torch.tensor([0.4, 1.6])
    logits, masks = drawn(task)
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    difference = F.cross_entropy(both, masks.long(), weight=weights) - F.cross_entropy(both, masks.long())
    torch.testing.assert_close(task.loss(logits, batch(masks), weights) - task.loss(logits, batch(masks)), difference)


@pytest.mark.parametrize("mask_classes", [ONE, THREE])
@pytest.mark.parametrize("level", [-1e4, 0.0, 1e4])
def test_gradient_on_empty_masks_is_finite(mask_classes: tuple[str, ...], level: float) -> None:
    task = build(mask_classes)
    logits = torch.full((3, task.outputs, 6, 6), level, requires_grad=True)
    loss = task.loss(logits, batch(torch.zeros(3, 6, 6, dtype=torch.uint8)))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_empty_slices_drown_a_lesion_less_than_with_dice_per_image() -> None:
    """Pull towards one small lesion over push from seven empty slices, against MONAI's loss per image."""
    masks = torch.zeros(8, 16, 16, dtype=torch.uint8)
    masks[0, 4:8, 4:8] = 1
    per_image = DiceCELoss(sigmoid=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    ratios = []
    for loss in (lambda z: build(ONE).loss(z, batch(masks)), lambda z: per_image(z, masks[:, None].float())):
        logits = torch.full((8, 1, 16, 16), -4.0, requires_grad=True)
        loss(logits).backward()
        ratios.append(float(-logits.grad[masks[:, None] > 0].sum() / logits.grad[1:].sum()))
    assert ratios[0] > 2 * ratios[1] > 0


@pytest.mark.parametrize(
    ("mask_classes", "outputs", "names"),
    [((), 1, ("foreground",)), (("lesion",), 1, ("lesion",)), (ONE, 1, ("lesion",)), (THREE, 3, THREE[1:])],
)
def test_outputs_follow_the_mask_classes(mask_classes: tuple[str, ...], outputs: int, names: tuple[str, ...]) -> None:
    task = build(mask_classes)
    assert (task.outputs, task.class_names) == (outputs, names)


def test_masks_with_more_classes_than_the_task_are_refused() -> None:
    with pytest.raises(DataError, match="hold the value 2; the task has 1 foreground"):
        build(ONE).prepare(data_with(np.full((2, 4, 4), 2, np.uint8), THREE))


def test_class_weights_count_pixels() -> None:
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[0, 0] = 1
    np.testing.assert_allclose(build(ONE).class_weights(data_with(masks, ONE)), [0.25, 1.75])


@pytest.mark.parametrize("mask_classes", [ONE, THREE])
def test_collect_counts_what_a_slow_twin_counts(mask_classes: tuple[str, ...]) -> None:
    task = build(mask_classes)
    logits, masks = drawn(task, count=4, seed=5)
    probabilities = task.probabilities(logits)
    result = task.collect([(probabilities, batch(masks))], np.arange(4).astype(str))
    both = torch.cat([1 - probabilities, probabilities], dim=1) if task.outputs == 1 else probabilities
    shown, truth, spread = both.argmax(dim=1).numpy(), masks.numpy(), both.numpy()
    for image in range(4):
        for k in range(len(task.class_names)):
            p, t = shown[image] == k + 1, truth[image] == k + 1
            counts = result.overlap[image, k], result.predicted[image, k], result.truth[image, k]
            assert counts == ((p & t).sum(), p.sum(), t.sum())
            np.testing.assert_equal(result.hd95[image, k], hd95(p, t))
        confidence, right = spread[image].max(axis=0), shown[image] == truth[image]
        inside = np.clip((confidence.astype(np.float64) * 15).astype(int), 0, 14)
        for cell in range(15):
            here = inside == cell
            expected = here.sum(), confidence[here].sum(), right[here].sum()
            np.testing.assert_allclose(result.bins[image, cell], expected, rtol=1e-5)
        errors = (spread[image] - np.eye(both.shape[1])[truth[image]].transpose(2, 0, 1)) ** 2
        expected = errors[1].mean() if task.outputs == 1 else errors.sum(axis=0).mean()
        assert result.brier[image] == pytest.approx(expected, rel=1e-5)


def test_a_perfect_and_sure_prediction_scores_perfectly() -> None:
    task = build(ONE)
    _, masks = drawn(task)
    logits = 60.0 * (2 * masks[:, None].float() - 1)
    result = task.collect([(task.probabilities(logits), batch(masks))], np.arange(5).astype(str))
    assert Dice().value(result)[0] == 1
    assert Brier().value(result)[0] == pytest.approx(0)
    assert ExpectedCalibrationError().value(result)[0] == pytest.approx(0, abs=1e-6)


def test_collect_takes_one_batch_at_a_time() -> None:
    """The next batch is asked for only after the one before has been reduced and let go."""
    task = build(ONE)
    earlier: list[weakref.ref] = []

    def batches() -> Iterator[tuple[Tensor, Batch]]:
        for seed in range(4):
            assert sum(reference() is not None for reference in earlier) <= 1
            logits, masks = drawn(task, seed=seed)
            probabilities = task.probabilities(logits)
            earlier.append(weakref.ref(probabilities))
            yield probabilities, batch(masks)

    assert len(task.collect(batches(), np.arange(20).astype(str))) == 20
