"""Corruptions against what their physics says, worked out by hand."""

import numpy as np
import pytest

from simulations.corruptions import CORRUPTIONS
from simulations.corruptions.corrupt import corrupt


def act(name, image, parameter, seed=0):
    return CORRUPTIONS.load(name).act(image.astype(np.float32), parameter, np.random.default_rng(seed))


FLAT = np.full((1, 64, 64), 0.4)


def test_noise_has_the_spread_that_is_said():
    assert act("gaussian_noise", FLAT, 0.1).std() == pytest.approx(0.1, rel=0.05)
    assert act("speckle_noise", FLAT, 0.1).std() == pytest.approx(0.04, rel=0.05)
    assert act("shot_noise", FLAT, 0.1).std() == pytest.approx(0.1 * 0.4**0.5, rel=0.05)
    # E[M²] = A² + 2σ² of a Rician magnitude.
    assert (act("rician_noise", FLAT, 0.1) ** 2).mean() == pytest.approx(0.16 + 0.02, rel=0.02)
    changed = act("impulse_noise", FLAT, 0.1)
    assert (changed != np.float32(0.4)).mean() == pytest.approx(0.1, abs=0.02)
    assert set(np.unique(changed[changed != np.float32(0.4)])) == {0.0, 1.0}


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur", "slice_thickness", "pixelate"])
def test_blur_leaves_flat_images_flat_and_keeps_the_light_of_a_point(name):
    parameter = CORRUPTIONS.load(name).levels[2]
    np.testing.assert_allclose(act(name, FLAT, parameter), FLAT, atol=1e-6)
    point = np.zeros((1, 64, 64))
    point[0, 30:34, 30:34] = 1.0
    blurred = act(name, point, parameter)
    assert blurred.sum() == pytest.approx(16.0, rel=0.03)
    assert blurred.max() < 1.0


def test_the_disk_of_defocus_has_the_area_of_its_radius():
    point = np.zeros((1, 65, 65))
    point[0, 32, 32] = 1.0
    spread = act("defocus_blur", point, 4.0)
    assert 1 / spread.max() == pytest.approx(np.pi * (4.0 * 65 / 64) ** 2, rel=0.02)


def test_thick_slices_blur_down_and_not_along():
    point = np.zeros((1, 64, 64))
    point[0, 32, 32] = 1.0
    spread = act("slice_thickness", point, 5.0)[0]
    assert (spread.sum(axis=0) > 1e-6).sum() == 1
    assert (spread > 0.19).sum() == 5


def test_look_up_tables_by_hand():
    assert act("gamma_corr_up", FLAT, 2.0)[0, 0, 0] == pytest.approx(0.16)
    assert act("brightness_up", FLAT, 0.1)[0, 0, 0] == pytest.approx(0.5)
    two = np.array([[[0.2, 0.6]]])
    np.testing.assert_allclose(act("contrast_down", two, 0.5), [[[0.3, 0.5]]], atol=1e-6)
    np.testing.assert_allclose(act("inversion", two, 1.0), 1 - two, atol=1e-6)


def test_stain_changes_no_white_and_multiplies_densities():
    colours = np.stack([np.full((4, 4), value) for value in (0.9, 0.5, 0.2)])
    found = act("stain_shift", colours, 0.5)
    factors = np.log(found) / np.log(colours)
    assert (np.ptp(factors.reshape(3, -1), axis=1) < 1e-4).all()
    assert (np.abs(np.log(factors)) <= 0.5 + 1e-4).all()
    np.testing.assert_allclose(act("stain_shift", np.ones((3, 4, 4)), 0.5), 1.0)


def test_a_ghost_lies_a_third_of_the_image_away():
    image = np.zeros((1, 60, 60))
    image[0, 5:9, 28:32] = 1.0
    found = act("ghosting", image, 0.9)[0]
    copies = [found[5 + shift : 9 + shift, 28:32].mean() for shift in (20, 40)]
    assert min(copies) > 0.2
    assert found[12:22, 28:32].mean() < 0.05


def test_a_ring_has_one_value_at_one_distance():
    found = act("ring", np.full((1, 65, 65), 0.4), 0.2)[0]
    y, x = np.mgrid[:65, :65] - 32
    for radius in (5, 12, 25):
        assert np.ptp(found[np.floor(np.hypot(y, x)).astype(int) == radius]) < 1e-6


def test_a_turn_and_back_is_the_middle_again_and_a_crop_enlarges():
    y, x = np.mgrid[:64, :64] / 64
    smooth = (0.5 + 0.3 * np.sin(5 * y) * np.cos(4 * x))[None]
    middle = (slice(None), slice(20, 44), slice(20, 44))
    ends = [act("rotation", smooth, 20.0, seed) for seed in range(8)]
    back = [act("rotation", end, 20.0, seed) for end in ends[:1] for seed in range(8)]
    assert min(np.abs(each[middle] - smooth[middle]).max() for each in back) < 0.01
    disk = (np.hypot(y - 0.5, x - 0.5) < 0.1)[None].astype(float)
    assert act("crop", disk, 0.8).sum() == pytest.approx(disk.sum() / 0.64, rel=0.05)


def test_a_channel_alone_and_all_alike_are_hit_the_same_way():
    grey = (np.random.default_rng(0).random((1, 1, 32, 32)) * 255).astype(np.uint8)
    for name in ("impulse_noise", "motion_blur", "hair", "ruler", "bubble", "metal", "rotation", "crop"):
        colour = corrupt(np.repeat(grey, 3, axis=1), name, 3, seed=1)
        np.testing.assert_array_equal(colour[:, 0], colour[:, 2])
