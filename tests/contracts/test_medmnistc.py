"""Our corruptions against those of the same name in `medmnistc`, where it is installed (it needs ImageMagick)."""

from types import ModuleType

import pytest

from common.shift.dyads import spearman
from tests.medmnistc_agreement import STEPS, agreement, shared

OTHERWISE = {
    "brightness_up": "they multiply, as exposure does; ours adds a constant, as an offset or a window does",
    "brightness_down": "the same",
    "pixelate": "they show the coarse pixels; ours interpolates, as a scanner's matrix does",
}
"""Where the same name means another thing."""
RANDOM = ("gaussian_noise", "shot_noise", "speckle_noise", "impulse_noise", "bubble", "motion_blur")
"""What is added depends on draws: only its statistics compare."""
TURNED = 0.05
"""A change of less than 5 % has no direction."""


@pytest.fixture(scope="module")
def registry() -> ModuleType:
    return pytest.importorskip(
        "medmnistc.corruptions.registry",
        reason="medmnistc is not installed: pip install medmnistc wand, and ImageMagick",
        exc_type=ImportError,
    )


@pytest.mark.slow
def test_the_same_names_mean_the_same(registry: ModuleType):
    names = shared(registry)
    assert len(names) == 17
    for name, data_set in names.items():
        found = agreement(registry, name, data_set)
        assert spearman(STEPS, found.strength) == pytest.approx(1.0)
        assert found.order >= 0.9, name
        if name not in OTHERWISE:
            for what, ours in found.ours.items():
                turned = min(abs(ours - 1), abs(found.theirs[what] - 1)) > TURNED
                assert not turned or (ours > 1) == (found.theirs[what] > 1), (name, what)
        if name not in (*OTHERWISE, *RANDOM):
            assert found.alike > 0.9, name
