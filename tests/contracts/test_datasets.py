"""Every entry of DATASETS: a tiny instance of each opens, is what it says, and is the same again.

A new data set needs one line in MAKERS: how to lay a tiny instance on disk.
"""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.config import DataSection, load_run_config
from common.data import DATASETS
from common.data import federation as federation_module
from common.data.archive import write_archive
from common.data.base import Dataset
from common.data.federation import Federation, open_federation
from common.errors import ConfigError, DataError
from common.items import BAG_SIDE, item_shape
from tests import benchmark_folders

SIDE = 16
PARTS = ("train", "val", "test")


def tiny() -> Dataset:
    """Two sites of 10 patients with two images each, and a mask for every image."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(20), 2)
    return Dataset(
        name="tiny",
        images=rng.integers(0, 256, (40, 1, SIDE, SIDE), dtype=np.uint8),
        labels=owner % 2,
        masks=rng.integers(0, 2, (40, SIDE, SIDE), dtype=np.uint8),
        patients=np.array([f"p{index % 10}" for index in owner]),
        sites=(owner // 10).astype(np.int64),
        site_names=("north", "south"),
        classes=("well", "sick"),
        mask_classes=("background", "lesion"),
        licence="CC0",
    )


def make_phantom(folder: Path) -> dict[str, object]:
    return {"patients-per-site": 6}


def make_archive(folder: Path) -> dict[str, object]:
    write_archive(folder / "tiny.npz", tiny())
    return {"path": str(folder / "tiny.npz")}


def make_folder(folder: Path) -> dict[str, object]:
    dataset = tiny()
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        (folder / "manifest.json").write_text('{"licence": "CC0"}')
        writer.writerow(["image", "patient", "site", "label", "mask"])
        for index in range(len(dataset)):
            Image.fromarray(dataset.images[index, 0]).save(folder / f"{index}.png")
            Image.fromarray(dataset.masks[index]).save(folder / f"{index}-mask.png")  # type: ignore[index]
            site = dataset.site_names[dataset.sites[index]]
            label = dataset.classes[dataset.labels[index]]  # type: ignore[index]
            writer.writerow([f"{index}.png", dataset.patients[index], site, label, f"{index}-mask.png"])
    return {"path": str(folder)}


def make_medmnist(folder: Path) -> dict[str, object]:
    dataset = tiny()
    arrays = {}
    for part, rows in zip(PARTS, np.split(np.arange(40), [20, 28]), strict=True):
        arrays[f"{part}_images"] = dataset.images[rows, 0]
        arrays[f"{part}_labels"] = np.asarray(dataset.labels)[rows, None]
    np.savez(folder / "pneumoniamnist.npz", **arrays)
    return {"path": str(folder / "pneumoniamnist.npz")}


def make_fed_isic2019(folder: Path) -> dict[str, object]:
    benchmark_folders.isic(folder)
    return {"path": str(folder)}


def make_fed_ixi(folder: Path) -> dict[str, object]:
    benchmark_folders.ixi(folder)
    return {"path": str(folder)}


def make_fed_kits19(folder: Path) -> dict[str, object]:
    benchmark_folders.kits(folder)
    return {"path": str(folder)}


def make_wilds_camelyon17(folder: Path) -> dict[str, object]:
    benchmark_folders.wilds(folder)
    return {"path": str(folder)}


def make_fed_camelyon16(folder: Path) -> dict[str, object]:
    benchmark_folders.camelyon16(folder)
    return {"path": str(folder), "max-instances": 6}


MAKERS: dict[str, Callable[[Path], dict[str, object]]] = {
    "phantom": make_phantom,
    "archive": make_archive,
    "folder": make_folder,
    "medmnist": make_medmnist,
    "fed-isic2019": make_fed_isic2019,
    "fed-camelyon16": make_fed_camelyon16,
    "fed-ixi": make_fed_ixi,
    "fed-kits19": make_fed_kits19,
    "wilds-camelyon17": make_wilds_camelyon17,
}
Settings = Callable[..., DataSection]


def test_every_data_set_has_a_maker() -> None:
    assert set(MAKERS) == set(DATASETS)


@pytest.fixture(scope="module", params=list(DATASETS))
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Give settings for a tiny instance of each data set; keyword `image_size=8` changes `data.image-size`."""
    name = request.param
    settings = MAKERS[name](tmp_path_factory.mktemp(name))

    def changed(**changes: object) -> DataSection:
        kebab = {key.replace("_", "-"): value for key, value in changes.items()}
        flat = {"name": name, "image-size": SIDE} | settings | kebab
        return load_run_config({f"data.{key}": value for key, value in flat.items()}).data

    return changed


def build(settings: DataSection) -> Dataset:
    dataset = DATASETS.load(settings.name)(settings)
    assert isinstance(dataset, Dataset)
    return dataset


def test_dataset_is_what_it_says(make: Settings) -> None:
    dataset = build(make())
    assert dataset.check() is dataset
    assert dataset.images.dtype in (np.uint8, np.float32)
    assert dataset.images.shape[1:] == item_shape(dataset.channels, dataset.side, 6)
    assert dataset.side == (BAG_SIDE if dataset.kind == "bags" else SIDE)
    assert dataset.images.std() > 0
    assert isinstance(dataset.licence, str)
    assert dataset.licence
    assert dataset.name
    assert dataset.patients.dtype.kind == "U"
    assert len(set(dataset.site_names)) == len(dataset.site_names)
    assert not any("," in name or not name.strip() for name in (*dataset.site_names, *dataset.classes))
    assert set(np.unique(dataset.sites)) == set(range(len(dataset.site_names)))
    if dataset.labels is not None:
        assert len(dataset.classes) >= 2
        assert dataset.labels.dtype == (np.int64 if dataset.labels.ndim == 1 else np.uint8)
    if dataset.masks is not None:
        assert len(dataset.mask_classes) >= 2


def test_same_settings_same_bytes_in_the_same_order(make: Settings) -> None:
    once, again = build(make()), build(make())
    assert once is not again
    assert once.digest() == again.digest()


def test_size_is_obeyed(make: Settings) -> None:
    dataset = build(make(image_size=24, max_instances=4))
    assert dataset.images.shape[2:] == ((4, 1) if dataset.kind == "bags" else (24, 24))
    assert dataset.masks is None or dataset.masks.shape[1:] == (24, 24)


def division(federation: Federation) -> str:
    rows = [(site.name, part, getattr(site, part).patients.tolist()) for site in federation.sites for part in PARTS]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def forget() -> None:
    """Let the next opening load anew, as another process would."""
    federation_module._divided.cache_clear()


def partitioned(make: Settings, partition: str) -> DataSection:
    """Give settings for a partition; a skew of labels is refused without any, scanners for bags."""
    settings = make(partition=partition, partition_sites=2)
    if partition == "dirichlet" and build(settings).labels is None:
        with pytest.raises(DataError, match="skews labels and there are none"):
            open_federation(settings)
        return make(partition="natural")
    if partition == "scanner" and build(settings).kind == "bags":
        with pytest.raises(ConfigError, match="works on pixels, and the data are bags"):
            open_federation(settings)
        return make(partition="natural")
    return settings


@pytest.mark.parametrize("partition", ["natural", "dirichlet", "quantity", "scanner"])
def test_patients_stand_in_one_split_of_one_site(make: Settings, partition: str) -> None:
    settings = partitioned(make, partition)
    federation = open_federation(settings)
    seen: set[tuple[str, str]] = set()
    total = 0
    for site in federation.sites:
        for part in PARTS:
            dataset = getattr(site, part)
            people = {(site.name, name) for name in dataset.patients.tolist()}
            assert people
            assert not people & seen
            seen |= people
            total += len(dataset)
    assert total == len(build(settings))


@pytest.mark.parametrize("partition", ["natural", "dirichlet", "quantity", "scanner"])
def test_same_seed_same_federation_other_seed_another(make: Settings, partition: str) -> None:
    settings = partitioned(make, partition)
    once = open_federation(settings)
    forget()
    again = open_federation(settings)
    assert (once.data_digest, once.split_digest) == (again.data_digest, again.split_digest)
    assert division(once) == division(again)
    other = open_federation(settings.model_copy(update={"seed": 11}))
    splits = build(settings).splits
    official = splits is not None and set(splits.tolist()) == {0, 1, 2}  # without val, the seed draws one
    if settings.partition == "natural" and official:
        assert other.split_digest == once.split_digest
    else:
        assert other.split_digest != once.split_digest


def test_federation_names_what_it_holds(make: Settings) -> None:
    settings = make()
    dataset, federation = build(settings), open_federation(settings)
    assert federation.classes == dataset.classes
    assert federation.mask_classes == dataset.mask_classes
    assert (federation.channels, federation.image_size) == (dataset.channels, dataset.side)
    assert federation.licence == dataset.licence
    assert federation.data_digest == dataset.digest()
    assert tuple(site.name for site in federation.sites) == dataset.site_names
    assert all(site.role == "source" for site in federation.sites)


def test_so_many_images_of_each_patient_stay(make: Settings) -> None:
    settings = make(max_images_per_patient=1)
    federation = open_federation(settings)
    everybody = {(site, name) for site, name in zip(*owners(build(make())), strict=True)}
    parts = [getattr(site, part) for site in federation.sites for part in PARTS]
    kept = [pair for part in parts for pair in zip(*owners(part), strict=True)]
    assert len(kept) == len(set(kept))
    assert set(kept) == everybody


def owners(dataset: Dataset) -> tuple[list[int], list[str]]:
    return dataset.sites.tolist(), dataset.patients.tolist()


def test_archive_of_any_data_set_opens_the_same(make: Settings, tmp_path: Path) -> None:
    dataset = build(make())
    if dataset.kind == "bags":
        with pytest.raises(ConfigError, match="an archive works on pixels, and the data are bags"):
            write_archive(tmp_path / "copy.npz", dataset)
        return
    write_archive(tmp_path / "copy.npz", dataset)
    flat = {"data.name": "archive", "data.path": str(tmp_path / "copy.npz"), "data.image-size": 0}
    assert build(load_run_config(flat).data).digest() == dataset.digest()
