"""Amplitude normalisation: the amplitude is the mean's, the phase the image's own, in NumPy's FFT."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from common.arrays import load_arrays, model_arrays
from common.config import load_run_config
from common.models.amplitude import AmplitudeNorm
from common.models.build import build_model


def images(count=6, channels=1, side=16, seed=0):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def amplitude(batch):
    return np.abs(np.fft.rfft2((batch.double().numpy() + 1) / 2, norm="ortho"))


@pytest.mark.parametrize(("channels", "side"), [(1, 16), (3, 15)])
def test_every_image_gets_the_mean_amplitude_and_keeps_its_phase(channels, side):
    norm, batch = AmplitudeNorm(channels, side, side), images(6, channels, side)
    norm.mean.copy_(torch.from_numpy(amplitude(images(9, channels, side, seed=5)).mean(0)))
    shown = norm(batch)
    np.testing.assert_allclose(amplitude(shown), np.broadcast_to(norm.mean, (6, *norm.mean.shape)), atol=1e-5)
    ours, theirs = (np.fft.rfft2((each.double().numpy() + 1) / 2) for each in (batch, shown))
    np.testing.assert_allclose(ours * np.abs(theirs), theirs * np.abs(ours), atol=1e-2)


def test_an_image_whose_amplitude_is_the_mean_stays():
    norm, batch = AmplitudeNorm(1, 16, 16), images(1)
    norm.mean.copy_(torch.from_numpy(amplitude(batch)[0]))
    torch.testing.assert_close(norm(batch), batch, atol=1e-5, rtol=0)


def test_before_there_is_a_mean_images_pass_as_they_are():
    batch = images()
    norm = AmplitudeNorm(1, 16, 16)
    assert torch.equal(norm(batch), batch)
    assert not norm.mean.any()


def test_it_follows_the_batches_only_while_it_moves():
    """The first batch's mean, then a tenth of the way to each; in eval mode too it is `moving` that says."""
    norm = AmplitudeNorm(1, 16, 16)
    norm.moving = True
    first, second = images(4), images(4, seed=1)
    norm(first)
    norm(second)
    expected = 0.9 * amplitude(first).mean(0) + 0.1 * amplitude(second).mean(0)
    np.testing.assert_allclose(norm.mean, expected, atol=1e-5)
    norm.moving = False
    norm(images(4, seed=2))
    np.testing.assert_allclose(norm.mean, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["se-convnet", "vit-tiny", "cbam-resnet", "attention-unet"])
def test_it_stands_before_features_and_answers_alike_and_travels_with_the_arrays(name):
    dense = name == "attention-unet"
    settings = load_run_config(
        {"strategy.name": "harmofl", "model.amplitude": True, "model.name": name, "model.width": 8}
    ).model
    model = build_model(settings, 1, 1, 32, seed=1, dense=dense).eval()
    batch = images(2, side=32)
    with torch.no_grad():
        before = model.features(batch), model(batch)
        model.before.mean.copy_(torch.from_numpy(amplitude(images(5, side=32, seed=3)).mean(0)))
        after = model.features(batch), model(batch)
        other = build_model(settings, 1, 1, 32, seed=2, dense=dense).eval()
        load_arrays(other, model_arrays(model))
        copy = deepcopy(model)
        assert torch.equal(other(batch), after[1])
        assert torch.equal(copy(batch), after[1])
        twin = model.before(batch)
        model.before.mean.zero_()
        assert torch.equal(model(twin), after[1])
    assert all(not torch.allclose(left, right) for left, right in zip(before, after, strict=True))


def test_without_the_setting_a_model_has_the_same_arrays_as_ever():
    plain = build_model(load_run_config({"model.width": 8}).model, 1, 1, 32, seed=1)
    assert not any(name.startswith(("before", "representation")) for name in plain.state_dict())
