"""A federation: the same in every process, roles by name, one copy of the images."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.config import DataSection, load_run_config
from common.data.archive import write_archive
from common.data.base import Dataset
from common.data.federation import Federation, open_federation
from common.errors import ConfigError, DataError, UnknownNameError

Make = Callable[..., Dataset]
Settings = Callable[..., DataSection]


@pytest.fixture
def archive_path(tmp_path: Path, make_dataset: Make) -> str:
    write_archive(tmp_path / "tiny.npz", make_dataset(sites=3))
    return str(tmp_path / "tiny.npz")


def shape(federation: Federation) -> list[tuple[str, str]]:
    return [(site.name, site.role) for site in federation.sites]


def test_roles_and_order(archive_path: str, data_settings: Settings) -> None:
    federation = open_federation(data_settings(path=archive_path, held_out="SITE A"))
    assert shape(federation) == [("site b", "source"), ("site c", "source"), ("site a", "held-out")]
    assert (federation.image_size, federation.channels) == (8, 1)
    assert federation.classes == ("none", "mild", "severe")
    assert federation.site("site a").role == "held-out"


def test_held_out_changes_neither_digest_nor_memory(archive_path: str, data_settings: Settings) -> None:
    one = open_federation(data_settings(path=archive_path))
    two = open_federation(data_settings(path=archive_path, held_out="site a"))
    assert (one.data_digest, one.split_digest) == (two.data_digest, two.split_digest)
    assert one.site("site a").train.images is two.site("site a").train.images


def test_digests_follow_data_and_seed(archive_path: str, data_settings: Settings, make_dataset: Make) -> None:
    first = open_federation(data_settings(path=archive_path))
    other_seed = open_federation(data_settings(path=archive_path, seed=8))
    assert other_seed.data_digest == first.data_digest
    assert other_seed.split_digest != first.split_digest
    write_archive(Path(archive_path), make_dataset(sites=3, seed=1))
    os.utime(archive_path, ns=(1, 1))
    assert open_federation(data_settings(path=archive_path)).data_digest != first.data_digest


def test_sites_share_no_image_and_lose_none(archive_path: str, data_settings: Settings, make_dataset: Make) -> None:
    federation = open_federation(data_settings(path=archive_path))
    parts = [part for site in federation.sites for part in (site.train, site.val, site.test)]
    images = np.concatenate([part.images for part in parts]).reshape(-1, 64)
    whole = make_dataset(sites=3).images.reshape(-1, 64)
    assert sorted(map(bytes, images)) == sorted(map(bytes, whole))
    for index, site in enumerate(federation.sites):
        assert {int(value) for part in (site.train, site.val, site.test) for value in part.sites} == {index}


def test_unknown_held_out_site(archive_path: str, data_settings: Settings) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'site b'"):
        open_federation(data_settings(path=archive_path, held_out="siteb"))


def test_all_held_out(archive_path: str, data_settings: Settings) -> None:
    with pytest.raises(ConfigError, match="holds out all 3 sites"):
        open_federation(data_settings(path=archive_path, held_out="site a, site b,site c"))


def test_site_with_two_patients(tmp_path: Path, data_settings: Settings, make_dataset: Make) -> None:
    write_archive(tmp_path / "small.npz", make_dataset(patients=2, sites=1))
    with pytest.raises(DataError, match="site 'site a' has 2 patients"):
        open_federation(data_settings(path=str(tmp_path / "small.npz")))


def test_site_without_images_is_left_out(tmp_path: Path, data_settings: Settings, make_dataset: Make) -> None:
    dataset = make_dataset(sites=2, site_names=("a", "empty", "b"))
    dataset.sites[dataset.sites == 1] = 2
    write_archive(tmp_path / "gap.npz", dataset)
    federation = open_federation(data_settings(path=str(tmp_path / "gap.npz")))
    assert [site.name for site in federation.sites] == ["a", "b"]


def test_cap(archive_path: str, data_settings: Settings) -> None:
    federation = open_federation(data_settings(path=archive_path, max_images_per_site=12))
    for site in federation.sites:
        assert 3 <= len(site.train) + len(site.val) + len(site.test) <= 12


def test_the_embedded_data_set_needs_no_path():
    settings = load_run_config({"data.patients-per-site": 4, "data.image-size": 16}).data
    assert settings.path == ""
    assert len(open_federation(settings).sites) > 1
