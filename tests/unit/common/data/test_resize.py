"""Resizing against hand-made means, Pillow's box filter, and a slow majority vote."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from common.data.base import Dataset
from common.data.resize import fit, fit_images, fit_masks, pad_to_square


def test_shrinking_by_a_whole_factor_is_the_rounded_mean() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 12, 12), dtype=np.uint8)
    means = images.reshape(5, 3, 4, 3, 4, 3).astype(float).mean(axis=(3, 5))
    assert np.array_equal(fit_images(images, 4), np.floor(means + 0.5))


@pytest.mark.parametrize(("side", "size"), [(16, 8), (30, 10), (64, 16)])
def test_shrinking_agrees_with_pillow(side: int, size: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 1, side, side), dtype=np.uint8)
    boxes = [np.asarray(Image.fromarray(image[0]).resize((size, size), Image.Resampling.BOX)) for image in images]
    assert np.abs(fit_images(images, size)[:, 0].astype(int) - np.stack(boxes)).max() <= 1


def test_floats_stay_floats_in_range() -> None:
    images = np.random.default_rng(2).random((3, 1, 9, 9), dtype=np.float32)
    for size in (5, 20):
        scaled = fit_images(images, size)
        assert scaled.dtype == np.float32
        assert 0 <= scaled.min() <= scaled.max() <= 1


@pytest.mark.parametrize("size", [3, 7, 40])
def test_constant_images_stay_constant(size: int) -> None:
    images = np.full((2, 3, 11, 11), 77, dtype=np.uint8)
    assert np.unique(fit_images(images, size)).tolist() == [77]


def test_same_size_and_zero_keep_the_bytes() -> None:
    images = np.random.default_rng(3).integers(0, 256, (2, 1, 6, 6), dtype=np.uint8)
    assert fit_images(images, 6) is images
    assert fit_images(images, 0) is images


def test_many_images_in_chunks_equal_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(4).integers(0, 256, (7, 1, 10, 10), dtype=np.uint8)
    masks = np.random.default_rng(5).integers(0, 3, (7, 10, 10), dtype=np.uint8)
    whole = fit_images(images, 4), fit_masks(masks, 4)
    monkeypatch.setattr("common.data.resize.PIXELS_AT_ONCE", 200)
    assert np.array_equal(fit_images(images, 4), whole[0])
    assert np.array_equal(fit_masks(masks, 4), whole[1])


def test_masks_take_the_majority() -> None:
    masks = np.random.default_rng(6).integers(0, 4, (6, 12, 12), dtype=np.uint8)
    blocks = masks.reshape(6, 4, 3, 4, 3).swapaxes(2, 3).reshape(6, 4, 4, 9)
    votes = (blocks[..., None] == np.arange(4)).sum(axis=3)
    assert np.array_equal(fit_masks(masks, 4), votes.argmax(axis=-1))


def test_enlarged_masks_hold_the_same_classes() -> None:
    masks = np.array([[[0, 2], [2, 0]]], dtype=np.uint8)
    assert set(np.unique(fit_masks(masks, 9))) == {0, 2}


def test_padding_is_black_and_equal_at_both_ends() -> None:
    padded = pad_to_square(np.ones((1, 1, 2, 5), dtype=np.uint8))
    assert padded.shape == (1, 1, 5, 5)
    assert padded[0, 0, :, 0].tolist() == [0, 1, 1, 0, 0]


def test_image_and_mask_stay_aligned(make_dataset: Callable[..., Dataset]) -> None:
    mask = np.zeros((1, 20, 30), dtype=np.uint8)
    mask[0, 4:12, 10:22] = 1
    dataset = make_dataset(patients=1, sites=1).subset(np.array([0]))
    fitted = fit(replace(dataset, images=mask[:, None] * np.uint8(255), masks=mask), 15)
    assert fitted.images.shape == (1, 1, 15, 15)
    assert np.array_equal(fitted.images[:, 0] > 128, fitted.masks == 1)
