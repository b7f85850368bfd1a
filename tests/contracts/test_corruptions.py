"""Every corruption: same shape, seeded, monotone in severity, refused outside its severities and modalities."""

from itertools import pairwise

import numpy as np
import pytest

from common.errors import ConfigError, DataError, UnknownNameError
from simulations.corruptions import CORRUPTIONS
from simulations.corruptions.corrupt import (
    FAMILIES,
    MODALITIES,
    SEVERITIES,
    corrupt,
    of_modality,
    refuse_elsewhere,
)

EVERY = pytest.mark.parametrize("name", CORRUPTIONS)


def pictures(channels: int, side: int = 48) -> np.ndarray:
    """Smooth blobs on a dark ground, with an edge: something that every corruption can change."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side] / side
    found = []
    for _ in range(6):
        a, b, c, d = rng.uniform(0.25, 0.75, 4)
        blob = 0.55 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.03) + 0.3 * (np.hypot(y - c, x - d) < 0.12)
        found.append(0.1 + blob * rng.uniform(0.7, 1.0, (channels, 1, 1)))
    return (np.clip(found, 0, 1) * 255).astype(np.uint8)


def channels_of(name: str) -> int:
    return CORRUPTIONS.load(name).channels or 1


@EVERY
def test_shape_type_and_input_stay_and_each_severity_goes_farther(name: str):
    clean = pictures(channels_of(name))
    before = clean.copy()
    far = []
    for severity in SEVERITIES:
        found = corrupt(clean, name, severity, seed=1)
        assert found.shape == clean.shape
        assert found.dtype == np.uint8
        far.append(np.abs(found.astype(float) - clean).mean())
    assert (clean == before).all()
    assert far[0] > 0.1, "the least severity is seen"
    assert all(low < high for low, high in pairwise(far)), far


@EVERY
def test_the_same_seed_gives_the_same_and_an_image_does_not_depend_on_the_others(name: str):
    clean = pictures(channels_of(name))
    first = corrupt(clean, name, 3, seed=5)
    assert (corrupt(clean, name, 3, seed=5) == first).all()
    assert (corrupt(clean[:2], name, 3, seed=5) == first[:2]).all()


@EVERY
def test_it_takes_three_channels_alike_and_other_sides(name: str):
    grey = pictures(1)
    if not CORRUPTIONS.load(name).channels:
        assert corrupt(np.repeat(grey, 3, axis=1), name, 4, seed=2).shape == (6, 3, 48, 48)
    wide = pictures(channels_of(name), 64)[:, :, :40]
    assert corrupt(wide, name, 5, seed=2).shape == wide.shape


@EVERY
def test_its_entry_is_whole(name: str):
    found = CORRUPTIONS.load(name)
    assert found.family in FAMILIES
    assert found.modalities
    assert found.modalities <= set(MODALITIES)
    assert len(set(found.levels)) == 5


@EVERY
@pytest.mark.parametrize("severity", [0, 6, -1, 1.0, "3", True])
def test_no_other_severity(name: str, severity: object):
    with pytest.raises(ConfigError, match="Allowed are 1 to 5"):
        corrupt(pictures(channels_of(name)), name, severity, seed=0)  # type: ignore[arg-type]


def test_there_are_twenty_at_least_and_every_modality_has_ten():
    assert len(CORRUPTIONS) >= 20
    assert all(len(of_modality(modality)) >= 10 for modality in MODALITIES)


def test_what_does_not_happen_in_a_modality_is_refused():
    refuse_elsewhere("ghosting", "mri")
    with pytest.raises(ConfigError, match="does not happen in dermoscopy"):
        refuse_elsewhere("ghosting", "dermoscopy")
    with pytest.raises(UnknownNameError):
        refuse_elsewhere("fog", "mri")
    with pytest.raises(ConfigError, match="Allowed are mri"):
        of_modality("cat photographs")


@pytest.mark.parametrize(
    ("images", "name"),
    [
        (np.zeros((2, 1, 8, 8), np.float32), "gaussian_noise"),
        (np.zeros((1, 8, 8), np.uint8), "gaussian_noise"),
        (np.zeros((2, 1, 8, 8), np.uint8), "stain_shift"),
    ],
)
def test_images_that_do_not_fit_are_refused(images: np.ndarray, name: str):
    with pytest.raises(DataError, match=r"Allowed|needs 3 channels"):
        corrupt(images, name, 1, seed=0)
