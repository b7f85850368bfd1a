"""Volumes become slices of their patient, and nothing of a volume is lost, mixed or divided."""

from pathlib import Path

import numpy as np
import pytest

from common.config import load_run_config
from common.data.archive import read_archive
from common.data.federation import open_federation
from common.data.npz import write_npz
from common.data.volumes import sliced


def _volumes(count: int = 6, depth: int = 4) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "images": random.integers(0, 255, (count, depth, 10, 8), dtype=np.uint8),
        "masks": random.integers(0, 3, (count, depth, 10, 8), dtype=np.uint8),
        "labels": np.arange(count) % 2,
        "centre": np.arange(count) // 3,
    }


def test_slices_keep_their_order_and_what_belongs_to_the_volume() -> None:
    arrays = _volumes()
    found = sliced(arrays)
    for volume in range(6):
        for depth in range(4):
            row = 4 * volume + depth
            assert (found["images"][row] == arrays["images"][volume, depth]).all()
            assert (found["masks"][row] == arrays["masks"][volume, depth]).all()
            assert [found[name][row] for name in ("labels", "centre", "patient")] == [volume % 2, volume // 3, volume]


def test_a_named_patient_stays_and_colour_images_are_no_volumes() -> None:
    arrays = _volumes() | {"patient": np.array([0, 0, 1, 2, 2, 3])}
    assert sliced(arrays)["patient"].tolist() == np.repeat([0, 0, 1, 2, 2, 3], 4).tolist()
    colour = {"images": np.zeros((5, 8, 8, 3), np.uint8), "labels": np.zeros(5)}
    assert sliced(colour) is colour
    assert sliced({"labels": np.zeros(2)}) == {"labels": pytest.approx([0, 0])}


def test_a_volume_never_stands_in_two_splits(tmp_path: Path) -> None:
    path = tmp_path / "volumes.npz"
    write_npz(path, _volumes(24) | {"centre": np.repeat([0, 1], 12)})
    settings = load_run_config(
        {"data.name": "archive", "data.path": str(path), "data.image-size": 8, "task.name": "segmentation"}
    ).data
    data = read_archive(path, settings)
    assert len(data) == 24 * 4
    assert data.masks is not None
    for site in open_federation(settings).sites:
        splits = [set(part.patients.tolist()) for part in (site.train, site.val, site.test)]
        assert not splits[0] & splits[1]
        assert not (splits[0] | splits[1]) & splits[2]
        assert sum(map(len, splits)) == 12
        assert len(site.train) == 4 * len(splits[0])
