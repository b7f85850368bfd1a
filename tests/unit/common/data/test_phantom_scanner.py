"""Scanners on whole stacks of images."""

from dataclasses import fields, replace

import numpy as np
import pytest

from common.data.phantom_scanner import SCANNERS, STAGES, Scanner, apply_scanner
from common.errors import ConfigError


def stack(count: int = 4, channels: int = 1, size: int = 32) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def rng() -> np.random.Generator:
    return np.random.default_rng(9)


@pytest.mark.parametrize("channels", [1, 3])
def test_default_scanner_returns_the_same_bytes(channels):
    assert np.array_equal(apply_scanner(stack(channels=channels), Scanner(), rng()), stack(channels=channels))


@pytest.mark.parametrize("name", SCANNERS)
def test_presets_are_seeded_and_change_images(name):
    once, again = (apply_scanner(stack(), SCANNERS[name], rng()) for _ in range(2))
    assert np.array_equal(once, again)
    assert once.dtype == np.uint8
    assert not np.array_equal(once, stack())
    assert not np.array_equal(once, apply_scanner(stack(), SCANNERS[name], np.random.default_rng(10)))


def test_an_image_does_not_depend_on_those_after_it(monkeypatch):
    scanner = replace(SCANNERS["worn"], poisson_noise=0.1)
    whole = apply_scanner(stack(7), scanner, rng())
    assert np.array_equal(apply_scanner(stack(7)[:3], scanner, rng()), whole[:3])
    monkeypatch.setattr("common.data.phantom_scanner.PIXELS_AT_ONCE", 2 * 32 * 32)
    assert np.array_equal(apply_scanner(stack(7), scanner, rng()), whole)


def test_turning_one_knob_leaves_the_draws_of_the_others():
    plain, brighter = Scanner(rician_noise=0.05), Scanner(rician_noise=0.05, gain=1.0, bias_field=1e-6)
    difference = apply_scanner(stack(), plain, rng()).astype(int) - apply_scanner(stack(), brighter, rng())
    assert np.abs(difference).max() <= 1


def test_every_knob_but_the_field_of_view_acts_in_a_stage():
    assert [name for name, _ in STAGES] == [each.name for each in fields(Scanner)][1:]


@pytest.mark.parametrize("knob", [each.name for each in fields(Scanner) if each.name != "contrast_inversion"])
@pytest.mark.parametrize("value", [-1e9, 1e9, float("nan")])
def test_a_knob_out_of_range_is_refused_with_its_range(knob, value):
    with pytest.raises(ConfigError, match=f"Scanner: {knob} .* Allowed is .* to "):
        Scanner(**{knob: value})


def test_no_image_is_no_trouble():
    assert apply_scanner(stack(0), SCANNERS["worn"], rng()).shape == (0, 1, 32, 32)
