"""Dice and HD95 against MONAI, and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from monai.metrics import compute_dice, compute_hausdorff_distance

from common.metrics.base import Segmented
from common.metrics.segmentation import Dice, Hd95, hd95

pytestmark = pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")  # MONAI's own call
masks = arrays.arrays(np.bool_, st.tuples(st.just(9), st.just(12)))


def judged(predicted: np.ndarray, truth: np.ndarray) -> Segmented:
    """Masks bool [N, K, H, W] as predictions."""
    count = len(truth)
    distances = [[hd95(p, t) for p, t in zip(*image, strict=True)] for image in zip(predicted, truth, strict=True)]
    overlap, shown, true = (np.sum(pixels, axis=(2, 3)) for pixels in (predicted & truth, predicted, truth))
    empty = np.zeros((count, 15, 3))
    return Segmented(overlap, shown, true, np.array(distances), empty, np.zeros(count), np.arange(count).astype(str))


def blobs(count: int, classes: int, size: int, seed: int) -> np.ndarray:
    """Discs at random places, some of them empty."""
    rng = np.random.default_rng(seed)
    centre, radius = rng.uniform(0, size, (2, count, classes, 1, 1)), rng.uniform(0, size / 4, (count, classes, 1, 1))
    rows, columns = np.indices((size, size))
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2) & (
        rng.random((count, classes, 1, 1)) < 0.8
    )


def monai_hd95(predicted: np.ndarray, truth: np.ndarray) -> float:
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth)]
    return float(compute_hausdorff_distance(*pair, include_background=True, percentile=95)[0, 0])


@settings(max_examples=60)
@given(masks.filter(np.any), masks.filter(np.any))
def test_hd95_equals_monai(predicted: np.ndarray, truth: np.ndarray) -> None:
    assert hd95(predicted, truth) == pytest.approx(monai_hd95(predicted, truth), abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_hd95_equals_monai_on_blobs(seed: int) -> None:
    predicted, truth = blobs(1, 1, 64, 2 * seed)[0, 0], blobs(1, 1, 64, 2 * seed + 1)[0, 0]
    if predicted.any() and truth.any():
        assert hd95(predicted, truth) == pytest.approx(monai_hd95(predicted, truth), abs=1e-4)


@given(masks.filter(np.any), masks.filter(np.any))
def test_hd95_is_symmetric_and_zero_on_itself(predicted: np.ndarray, truth: np.ndarray) -> None:
    assert hd95(predicted, truth) == hd95(truth, predicted)
    assert hd95(truth, truth) == 0


def test_hd95_of_a_shift_is_the_shift() -> None:
    truth = np.zeros((20, 20), dtype=bool)
    truth[5:9, 5:9] = True
    assert hd95(np.roll(truth, 1, axis=1), truth) == 1
    point, other = np.zeros((2, 20, 20), dtype=bool)
    point[2, 3], other[5, 7] = True, True
    assert hd95(point, other) == 5


@pytest.mark.parametrize("filled", [(False, False), (True, False), (False, True)])
def test_hd95_with_an_empty_mask_is_nan(filled: tuple[bool, bool]) -> None:
    assert np.isnan(hd95(*(np.full((4, 4), full) for full in filled)))


@pytest.mark.parametrize("classes", [1, 3])
def test_dice_equals_monai(classes: int) -> None:
    predicted, truth = blobs(40, classes, 32, 1), blobs(40, classes, 32, 2) | blobs(40, classes, 32, 1)
    each = compute_dice(torch.from_numpy(predicted), torch.from_numpy(truth), include_background=True)
    expected = each.nanmean(dim=0).mean()
    assert Dice().value(judged(predicted, truth))[0] == pytest.approx(float(expected), abs=1e-6)


def test_images_without_foreground_do_not_count() -> None:
    truth = np.zeros((3, 1, 8, 8), dtype=bool)
    truth[:2, 0, 2:4, 2:4] = True
    predicted = truth.copy()
    predicted[1] = False
    predicted[2] = True
    data = judged(predicted, truth)
    assert Dice().value(data)[0] == 0.5
    assert Dice().support(data) == 2
    assert Hd95().value(data)[0] == 0
    assert Hd95().support(data) == 1


def test_classes_count_alike_whatever_their_images() -> None:
    truth = np.zeros((4, 2, 8, 8), dtype=bool)
    truth[:, 0, 0, :4] = True
    truth[0, 1, 5, :4] = True
    predicted = truth.copy()
    predicted[:, 0] = False
    assert Dice().value(judged(predicted, truth))[0] == pytest.approx(0.5)


def test_nothing_to_find_is_undefined() -> None:
    data = judged(np.ones((2, 1, 4, 4), dtype=bool), np.zeros((2, 1, 4, 4), dtype=bool))
    assert np.isnan(Dice().value(data)[0])
    assert np.isnan(Hd95().value(data)[0])
    assert Dice().support(data) == Hd95().support(data) == 0
