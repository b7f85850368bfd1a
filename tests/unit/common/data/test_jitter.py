"""Jitter of acquisition: each change does what its page says, masks move along, and three fall on each image."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.config import load_run_config
from common.data import jitter as jitters
from common.data.augment import augment, augmented
from common.data.base import Batch
from common.data.jitter import CHANGES, TABLE, blur, jitter, turn


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def batch(count=8, channels=1, side=24, seed=0):
    masks = torch.zeros(count, side, side, dtype=torch.uint8)
    masks[:, 6:12, 8:16] = 1
    images = torch.rand(count, channels, side, side, generator=seeded(seed)) * 2 - 1
    return Batch(images=images, labels=torch.arange(count), masks=masks)


def full(value, rows=3):
    """Every strength at one value."""
    return torch.full((rows, jitters.COEFFICIENTS), float(value))


@pytest.mark.parametrize("channels", [1, 3])
def test_values_stay_in_range_shapes_and_labels_stay_and_the_input_is_left_alone(channels):
    before = batch(32, channels)
    images, masks = before.images.clone(), before.masks.clone()
    after = jitter(before, seeded())
    assert after.images.shape == before.images.shape
    assert after.images.dtype == torch.float32
    assert after.images.min() >= -1
    assert after.images.max() <= 1
    assert after.masks.dtype == torch.uint8
    assert set(after.masks.unique().tolist()) <= {0, 1}
    assert torch.equal(after.labels, before.labels)
    assert torch.equal(before.images, images)
    assert torch.equal(before.masks, masks)
    assert jitter(Batch(images, None, None), seeded()).masks is None


def test_the_seed_decides_and_the_global_state_is_left_alone():
    state = torch.get_rng_state()
    first, again, other = (jitter(batch(), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert torch.equal(torch.get_rng_state(), state)


def test_each_image_gets_three_changes_and_each_change_its_share(monkeypatch):
    """4,000 images, 8 changes with turns: each on 3/8 of them, within 5 standard errors; each leaves a digit."""
    count = 4000
    counted = torch.zeros(count, dtype=torch.int64)
    shares = {}

    def counting(name):
        def change(images, strength, random):
            shares[name] = len(images) / count
            return images + 100 ** -(1 + list(TABLE).index(name))

        return change

    def turning(images, masks, rows, random):
        shares["turn"] = len(rows) / count
        counted[rows] += 1
        return images, masks

    digits = []

    def clamp(images, low, high):
        digits.append(images.clone())
        return images

    monkeypatch.setattr(jitters, "TABLE", {name: counting(name) for name in TABLE})
    monkeypatch.setattr(jitters, "turn", turning)
    monkeypatch.setattr(torch.Tensor, "clamp_", clamp)
    jitter(Batch(torch.full((count, 1, 1, 1), -1.0).double(), None, None), seeded())
    added = digits[0].flatten()
    for _ in TABLE:
        added = added * 100
        whole = (added + 1e-3).floor()
        counted += whole.long()
        added = added - whole
    assert (counted == CHANGES).all()
    assert len(shares) == 8
    assert all(abs(share - 3 / 8) < 5 * math.sqrt(3 / 8 * 5 / 8 / count) for share in shares.values())


def test_neutral_strengths_change_nothing():
    images = torch.rand(3, 3, 16, 16, generator=seeded()) * 0.9 + 0.05
    for name, change in TABLE.items():
        torch.testing.assert_close(change(images, full(0), seeded()), images, msg=name)
    still, _ = turn(images, None, torch.arange(3), NoTurn())
    torch.testing.assert_close(still, images, rtol=1e-4, atol=1e-4)


class NoTurn(torch.Generator):
    """A generator whose draws all lie in the middle, so that nothing turns or grows."""


@pytest.fixture(autouse=True)
def middle(monkeypatch):
    rand = torch.rand

    def drawn(*size, generator=None, **others):
        return torch.full(size, 0.5) if isinstance(generator, NoTurn) else rand(*size, generator=generator, **others)

    monkeypatch.setattr(torch, "rand", drawn)


@pytest.mark.parametrize("sign", [-1, 1])
def test_each_change_at_full_strength_by_its_formula(sign):
    """Grey of 0.25 and 0.5: the largest change each way, in NumPy."""
    x = np.full((1, 1, 8, 8), 0.25, np.float32)
    x[..., 4:] = 0.5
    images, strength = torch.from_numpy(x), full(sign, 1)
    power = 1.5 if sign > 0 else 1 / 1.5
    factor = 1.43 if sign > 0 else 1 / 1.43
    expected = {
        "gamma": x**power,
        "exposure": x * math.exp(0.14 * sign),
        "contrast": (x - 0.375) * factor + 0.375,
        "brightness": x + 0.1 * sign,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(TABLE[name](images, strength, seeded()), values, rtol=2e-3, err_msg=name)


def test_colour_is_balanced_per_channel():
    strength = torch.tensor([[1.0, 0.0, -1.0, 0, 0]])
    after = TABLE["exposure"](torch.full((1, 3, 4, 4), 0.5), strength, seeded())[0, :, 0, 0]
    np.testing.assert_allclose(after, [0.5 * math.exp(0.14), 0.5, 0.5 * math.exp(-0.14)], rtol=1e-6)


def test_a_bias_field_is_a_smooth_positive_factor_within_its_bound():
    after = TABLE["bias-field"](torch.ones(64, 1, 32, 32), torch.rand(64, 5, generator=seeded()) * 2 - 1, seeded())
    field = after.log()
    assert field.abs().max() <= 0.4
    assert field.flatten(1).std(1).min() > 0.01
    steps = (field[..., 1:] - field[..., :-1]).abs().max()
    assert steps < 0.4 / 5 * 5 * (2 / 31) * 2  # five terms whose slopes are at most 2 per unit


def test_blur_takes_energy_from_high_frequencies_and_its_opposite_adds():
    images = torch.rand(1, 1, 32, 32, generator=seeded())
    rough = [
        F.mse_loss(each[..., 1:], each[..., :-1]) for each in (blur(images, full(s, 1), seeded()) for s in (1, 0, -1))
    ]
    assert rough[0] < 0.3 * rough[1]
    assert rough[2] > 1.1 * rough[1]
    flat = torch.full((1, 1, 8, 8), 0.3)
    torch.testing.assert_close(blur(flat, full(1, 1), seeded()), flat)


def test_noise_has_the_deviation_of_its_strength():
    images = torch.full((2, 1, 100, 100), 0.5)
    strength = torch.stack([full(1, 1)[0], full(-0.5, 1)[0]])
    spread = (TABLE["noise"](images, strength, seeded()) - images).flatten(1).std(1)
    torch.testing.assert_close(spread, torch.tensor([0.05, 0.025]), rtol=0.04, atol=0)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96)])
def test_a_turn_is_a_turn_of_pixels_and_the_mask_goes_with_the_image(height, width):
    """A dot moves as a rotation matrix says, times the size, also where sides differ."""
    count, y, x = 40, 12.0, 10.0  # offsets from the centre, in pixels
    rows, columns = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    dots = torch.exp(-((rows[:, None] - y) ** 2 + (columns[None] - x) ** 2) / 18)
    masks = (dots > 0.5).to(torch.uint8).expand(count, -1, -1)
    images, turned = turn(dots.expand(count, 1, -1, -1), masks, torch.arange(count), seeded())
    strength = torch.rand(count, 2, generator=seeded()) * 2 - 1
    angle, size = strength[:, 0] * 10 * math.pi / 180, (strength[:, 1] * 0.1).exp()
    # The grid reads from R(angle)/size · place, so the dot lands at size · R(-angle) · place.
    expected_x = size * (angle.cos() * x + angle.sin() * y)
    expected_y = size * (-angle.sin() * x + angle.cos() * y)
    for found, within in ((images[:, 0], 0.05), (turned.float(), 0.5)):  # a mask's edge falls on whole pixels
        weight = found / found.sum((1, 2), keepdim=True)
        torch.testing.assert_close((weight.sum(2) * rows).sum(1), expected_y, rtol=0, atol=within)
        torch.testing.assert_close((weight.sum(1) * columns).sum(1), expected_x, rtol=0, atol=within)


def test_images_that_are_not_chosen_stay_where_they_are():
    before = batch(4).images
    after, _ = turn(before, None, torch.tensor([2]), seeded())
    assert torch.equal(after[[0, 1, 3]], before[[0, 1, 3]])
    assert not torch.equal(after[2], before[2])


def test_settings_choose_what_is_done():
    before = batch()

    def found(**changes):
        settings = load_run_config({f"train.{key.replace('_', '-')}": value for key, value in changes.items()}).train
        return augmented(before, settings, seeded()).images

    assert torch.equal(found(), augment(before, seeded()).images)
    assert torch.equal(found(augment=False, augmentation="medical"), before.images)
    random = seeded()
    both = jitter(augment(before, random), random).images
    assert torch.equal(found(augmentation="medical"), both)
    assert not torch.equal(found(augment=False, amplitude_mix=0.2), before.images)
