"""Each cause against its formula, and without effect at its neutral parameter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from common.data import phantom_physics as physics
from common.data.phantom_scanner import SCANNERS, STAGES, Scanner

NEUTRAL = Scanner()


def rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def scenes(count: int = 3, size: int = 64) -> np.ndarray:
    return rng(1).random((count, size, size), dtype=np.float32)


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_neutral_parameter_is_the_identity_and_draws_nothing(name, stage):
    images, generator = scenes(), rng()
    before = generator.bit_generator.state
    assert np.array_equal(stage(images, getattr(NEUTRAL, name), generator), images)
    assert generator.bit_generator.state == before


@pytest.mark.parametrize(("name", "stage"), STAGES)
@pytest.mark.parametrize("scanner", ["worn", "inverted", "low-dose", "wide"])
def test_shape_and_dtype_stay_and_the_input_is_untouched(name, stage, scanner):
    images = scenes()
    for shaped in (images, np.repeat(images[:, None], 3, axis=1)):
        copy = shaped.copy()
        result = stage(shaped, getattr(SCANNERS[scanner], name), rng())
        assert result.shape == shaped.shape
        assert result.dtype == np.float32
        assert np.array_equal(shaped, copy)


@given(factor=st.floats(0.1, 5), shift=st.floats(-1, 1))
@settings(max_examples=20, deadline=None)
def test_gain_and_offset_are_exact(factor, shift):
    images = scenes(1, 8)
    assert np.array_equal(physics.gain(images, factor, rng()), images * np.float32(factor))
    assert np.array_equal(physics.offset(images, shift, rng()), images + np.float32(shift))


def test_gamma_keeps_black_and_white_and_darkens_between():
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4)
    np.testing.assert_allclose(physics.gamma(ramp, 2.0, rng()), ramp**2, rtol=1e-6)
    assert physics.gamma(ramp - 1, 2.0, rng()).min() == 0


def test_inversion_twice_is_the_identity():
    images = scenes()
    once = physics.contrast_inversion(images, True, rng())
    np.testing.assert_allclose(once, 1 - images)
    np.testing.assert_allclose(physics.contrast_inversion(once, True, rng()), images, atol=1e-6)


def test_bias_field_stays_in_its_bounds_is_smooth_and_differs_between_images():
    field = physics.bias_field(np.ones((6, 64, 64), np.float32), 0.5, rng())
    np.testing.assert_allclose(np.abs(np.log(field)).max(axis=(1, 2)), 0.5, rtol=1e-4)
    assert np.abs(np.diff(np.log(field), axis=2)).max() < 0.1
    assert not np.allclose(field[0], field[1])


def test_colour_channels_share_one_coil():
    field = physics.bias_field(np.ones((2, 3, 16, 16), np.float32), 0.5, rng())
    assert np.array_equal(field[:, 0], field[:, 2])


def test_vignette_takes_its_share_in_the_corner_and_none_in_the_centre():
    field = physics.vignette(np.ones((1, 65, 65), np.float32), 0.4, rng())[0]
    assert field[32, 32] == 1
    corner = (1 - 1 / 65) ** 2  # the centre of the corner pixel, squared, per axis
    assert field[0, 0] == pytest.approx(1 - 0.4 * corner)


def test_blur_agrees_with_scipy_inside_and_keeps_flat_images_flat():
    images = scenes(2)
    blurred = physics.psf_blur(images, 1.5, rng())
    slow = np.stack([ndimage.gaussian_filter(image, 1.5, truncate=9) for image in images])
    np.testing.assert_allclose(blurred[:, 12:-12, 12:-12], slow[:, 12:-12, 12:-12], atol=1e-4)
    np.testing.assert_allclose(physics.psf_blur(np.ones((1, 20, 30), np.float32), 3.0, rng()), 1, rtol=1e-5)


@pytest.mark.parametrize(("stage", "weak", "strong"), [(physics.psf_blur, 0.5, 1.5), (physics.resolution, 0.7, 0.3)])
def test_blur_and_low_resolution_take_high_frequencies(stage, weak, strong):
    def energy(images: np.ndarray) -> float:
        return float((np.abs(np.fft.fft2(images))[:, 16:48, 16:48] ** 2).mean())

    images = scenes()
    assert energy(images) > energy(stage(images, weak, rng())) > energy(stage(images, strong, rng()))


def test_half_resolution_is_the_mean_of_two_then_linear():
    row = np.float32([0, 2, 4, 8])
    image = np.broadcast_to(row, (1, 4, 4)).copy()
    # Pairs have the means 1 and 6, at 0.5 and 2.5 in shown pixels; pixels 1 and 2 lie a quarter of the way in.
    np.testing.assert_allclose(physics.resolution(image, 0.5, rng())[0, 0], [1, 2.25, 4.75, 6], rtol=1e-6)


def test_half_resolution_keeps_a_gradient_and_a_flat_image():
    ramp = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32), (1, 64, 64)).copy()
    np.testing.assert_allclose(physics.resolution(ramp, 0.5, rng())[0, :, 4:-4], ramp[0, :, 4:-4], atol=1e-5)


@pytest.mark.parametrize("signal", [0.0, 0.1, 0.6])
def test_rician_moments(signal):
    sigma = 0.1
    noisy = physics.rician_noise(np.full((40, 64, 64), signal, np.float32), sigma, rng()).astype(np.float64)
    assert (noisy**2).mean() == pytest.approx(signal**2 + 2 * sigma**2, rel=0.01)
    if signal == 0:  # Rayleigh
        assert noisy.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)
        assert noisy.var() == pytest.approx((2 - np.pi / 2) * sigma**2, rel=0.02)


@pytest.mark.parametrize("signal", [0.25, 1.0])
def test_poisson_moments(signal):
    noisy = physics.poisson_noise(np.full((40, 64, 64), signal, np.float32), 0.1, rng()).astype(np.float64)
    assert noisy.mean() == pytest.approx(signal, rel=0.01)
    assert noisy.var() == pytest.approx(signal * 0.1**2, rel=0.02)
