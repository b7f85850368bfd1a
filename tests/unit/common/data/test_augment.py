"""Augmentation: image and mask move together, and nothing is invented."""

import pytest
import torch

from common.data.augment import SHARE, augment
from common.data.base import Batch


def batch(count=16, channels=1, side=24, seed=0):
    random = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (count, side, side), generator=random, dtype=torch.uint8)
    images = masks[:, None].float().repeat(1, channels, 1, 1) / 4 - torch.arange(channels)[:, None, None]
    return Batch(images=images, labels=torch.arange(count), masks=masks)


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def moved(images, flip, down, right):
    """Slow twin: one pixel at a time; the source is clamped to the edge, then left and right may change places."""
    height, width = images.shape[-2:]
    out = torch.empty_like(images)
    for y in range(height):
        for x in range(width):
            column = min(max(x + right, 0), width - 1)
            out[..., y, x] = images[..., min(max(y + down, 0), height - 1), width - 1 - column if flip else column]
    return out


def test_each_image_is_one_flip_and_one_shift_of_itself():
    before = batch(8, side=24)
    after = augment(before, seeded())
    reach = 24 // SHARE
    moves = [(flip, y, x) for flip in (0, 1) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    found = []
    for old, new in zip(before.images, after.images, strict=True):
        [move] = [move for move in moves if torch.equal(moved(old, *move), new)]
        found.append(move)
    assert {flip for flip, _, _ in found} == {0, 1}
    assert len(set(found)) > 4


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mask_moves_with_its_image(channels):
    after = augment(batch(channels=channels), seeded())
    assert after.masks.dtype == torch.uint8
    for channel in range(channels):
        torch.testing.assert_close(after.images[:, channel], after.masks.float() / 4 - channel)


def test_labels_stay_and_the_batch_given_is_not_changed():
    before = batch()
    images, masks = before.images.clone(), before.masks.clone()
    after = augment(before, seeded())
    assert torch.equal(after.labels, before.labels)
    assert torch.equal(before.images, images)
    assert torch.equal(before.masks, masks)
    assert after.images.shape == before.images.shape
    without = augment(Batch(images, None, None), seeded())
    assert without.masks is None
    assert without.labels is None
    assert torch.equal(without.images, after.images)


def test_flips_alone_are_involutions(monkeypatch):
    """With shifts of zero, the same draw twice gives the images back."""
    before = batch()
    monkeypatch.setattr(torch, "randint", lambda low, high, size, generator: torch.zeros(size, dtype=torch.int64))
    once = augment(before, seeded())
    assert not torch.equal(once.images, before.images)
    assert torch.equal(augment(once, seeded()).images, before.images)
    assert torch.equal(augment(once, seeded()).masks, before.masks)


def test_the_seed_decides_and_the_global_state_is_left_alone():
    state = torch.get_rng_state()
    first, again, other = (augment(batch(), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert torch.equal(torch.get_rng_state(), state)


def test_flips_and_shifts_are_as_frequent_as_said():
    """4,000 marked images: half flipped (within 5 standard errors), every shift from -2 to 2 equally often."""
    count, side = 4000, 24
    ramp = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side)
    after = augment(Batch(ramp.expand(count, 1, side, side), None, None), seeded()).images[:, 0]
    flipped = after[:, 12, 13] < after[:, 12, 12]
    assert abs(flipped.float().mean() - 0.5) < 5 * (0.25 / count) ** 0.5
    down = (after[:, 12, 12] // side - 12).long()
    shares = torch.bincount(down + 2, minlength=5) / count
    assert shares.shape == (5,)
    assert (shares - 0.2).abs().max() < 5 * (0.16 / count) ** 0.5


@pytest.mark.parametrize("side", [1, 2, 5, 11])
def test_small_images_shift_by_one_pixel_at_most(side):
    before = batch(side=side)
    after = augment(before, seeded())
    assert after.images.shape == before.images.shape
    assert set(after.masks.unique().tolist()) <= set(before.masks.unique().tolist())


def test_wide_images_keep_rows_and_columns_apart():
    images = torch.arange(12 * 48, dtype=torch.float32).reshape(1, 1, 12, 48).expand(6, 1, 12, 48)
    after = augment(Batch(images, None, None), seeded()).images[:, 0]
    rows, columns = after // 48, after % 48
    assert (rows == rows[:, :, :1]).all()
    assert (columns == columns[:, :1]).all()
    assert ((rows[:, 5, 0] - 5).abs() <= 1).all()  # the shorter side says how far
