"""Amplitude and phase, against NumPy's FFT."""

import numpy as np
import pytest
import torch

from common.data.amplitude import mix_amplitude
from common.data.base import Batch
from common.spectrum import spectrum, with_amplitude


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def images(count=4, channels=1, height=16, width=16, seed=0):
    return torch.rand(count, channels, height, width, generator=seeded(seed))


def low(height, width, reach):
    return (np.abs(np.fft.fftfreq(height)) <= reach)[:, None] & (np.abs(np.fft.fftfreq(width)) <= reach)[None]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 17), (12, 15), (15, 12)])
def test_an_image_with_another_amplitude_has_that_amplitude_and_its_own_phase(height, width):
    own, other = images(1, 3, height, width).double(), images(1, 3, height, width, seed=5).double()
    found = with_amplitude(spectrum(own), spectrum(other).abs(), own.shape)
    ours, theirs, mixed = (np.fft.fft2(each.numpy(), norm="ortho") for each in (own, other, found))
    np.testing.assert_allclose(np.abs(mixed), np.abs(theirs), atol=1e-12)
    np.testing.assert_allclose(mixed * np.abs(ours), ours * np.abs(theirs), atol=1e-10)  # equal phases


def test_its_own_amplitude_changes_nothing_and_black_takes_the_other_with_phase_zero():
    own = images()
    torch.testing.assert_close(with_amplitude(spectrum(own), spectrum(own).abs(), own.shape), own)
    found = with_amplitude(spectrum(torch.zeros_like(own)), spectrum(own).abs(), own.shape)
    np.testing.assert_allclose(np.fft.fft2(found.double().numpy(), norm="ortho").imag, 0, atol=1e-5)


@pytest.mark.parametrize("reach", [0.0, 0.1, 0.5])
def test_mixing_by_a_slow_twin_in_numpy(reach):
    before = Batch(images(6, 3, 16, 20) * 2 - 1, torch.arange(6), torch.ones(6, 16, 20, dtype=torch.uint8))
    after = mix_amplitude(before, reach, seeded(8))
    random = seeded(8)
    takes, share = torch.rand(6, generator=random).numpy() < 0.5, torch.rand(6, generator=random).numpy()
    other = torch.randint(6, (6,), generator=random).numpy()
    assert 0 < takes.sum() < 6
    unit = (before.images.double().numpy() + 1) / 2
    for i in range(6):
        own, partner = np.fft.fft2(unit[i]), np.fft.fft2(unit[other[i]])
        weight = share[i] * low(16, 20, reach)
        amplitude = (1 - weight) * np.abs(own) + weight * np.abs(partner)
        expected = np.fft.ifft2(amplitude * np.exp(1j * np.angle(own))).real.clip(0, 1) * 2 - 1
        np.testing.assert_allclose(after.images[i], expected if takes[i] else before.images[i], atol=2e-5)
    assert torch.equal(after.masks, before.masks)
    assert torch.equal(after.labels, before.labels)


def test_one_image_has_only_itself_to_mix_with():
    alone = Batch(images(1) * 2 - 1, None, None)
    for seed in range(5):
        torch.testing.assert_close(mix_amplitude(alone, 0.5, seeded(seed)).images, alone.images, atol=1e-5, rtol=0)


def test_the_seed_decides_and_the_global_state_is_left_alone():
    state = torch.get_rng_state()
    before = Batch(images(8) * 2 - 1, None, None)
    first, again, other = (mix_amplitude(before, 0.2, seeded(seed)).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.min() >= -1
    assert first.max() <= 1
