"""Public benchmarks, from tiny folders laid out as theirs: whose, which side, what pixels, and every missing piece."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from common.config import DataSection, load_run_config
from common.data import DATASETS
from common.data.base import Dataset
from common.data.fed_isic2019 import untorn
from common.data.federation import open_federation
from common.errors import ConfigError, DataError, UnknownNameError
from tests import benchmark_folders

MAKERS = {
    "fed-isic2019": benchmark_folders.isic,
    "fed-ixi": benchmark_folders.ixi,
    "fed-kits19": benchmark_folders.kits,
    "wilds-camelyon17": benchmark_folders.wilds,
    "fed-camelyon16": benchmark_folders.camelyon16,
}
TABLES = {
    "fed-isic2019": "train_test_split",
    "fed-ixi": "metadata_tiny.csv",
    "fed-kits19": "thresholded_sites.csv",
    "wilds-camelyon17": "metadata.csv",
    "fed-camelyon16": "metadata.csv",
}
ISIC, IXI, KITS, WILDS, SLIDES = MAKERS
Laid = Callable[[str], Path]
SMALL = {"data.image-size": 16, "data.max-instances": 8}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    roots = {name: tmp_path_factory.mktemp(name) for name in MAKERS}
    for name, root in roots.items():
        MAKERS[name](root)
    return roots


@pytest.fixture
def laid(originals: dict[str, Path], tmp_path: Path) -> Laid:
    """Give a copy of a benchmark's folder, to be spoilt."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(originals[name], tmp_path / name))

    return copy


def settings(name: str, root: Path | str, **changes: Any) -> DataSection:
    kebab = {f"data.{key.replace('_', '-')}": value for key, value in changes.items()}
    return load_run_config({"data.name": name, "data.path": str(root), **SMALL, **kebab}).data


def opened(name: str, root: Path | str, **changes: Any) -> Dataset:
    dataset = DATASETS.load(name)(settings(name, root, **changes))
    assert isinstance(dataset, Dataset)
    return dataset


def rows_of(name: str, root: Path) -> list[dict[str, str]]:
    with (root / TABLES[name]).open(newline="") as file:
        return list(csv.DictReader(file))


def change(name: str, root: Path, row: int, **cells: Any) -> None:
    rows: list[dict[str, Any]] = list(rows_of(name, root))
    rows[row] |= cells
    benchmark_folders.write_csv(root / TABLES[name], rows)


def test_isic_keeps_centres_classes_and_the_official_test(originals: dict[str, Path]) -> None:
    dataset = opened(ISIC, originals[ISIC])
    rows = rows_of(ISIC, originals[ISIC])
    assert dataset.site_names == ("BCN", "vidir-molemax", "vidir-modern", "rosendahl", "MSK", "vienna-dias")
    assert dataset.classes == ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
    torn = [row for row in rows if row["fold2"].startswith("train") and row["image"][6:7] == "2"]
    kept = [row for row in rows if row not in torn]
    assert len(torn) == 12
    assert dataset.sites.tolist() == [int(row["center"]) for row in kept]
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [int(row["target"]) for row in kept]
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [2 * row["fold2"].startswith("test") for row in kept]
    assert dataset.patients.tolist() == [f"L{row['image'][5]}_{row['image'][6]}" for row in kept]


def test_isic_published_division_counts_images(originals: dict[str, Path]) -> None:
    dataset = opened(ISIC, originals[ISIC], patient="image")
    rows = rows_of(ISIC, originals[ISIC])
    assert len(dataset) == len(set(dataset.patients.tolist())) == len(rows)
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [2 * row["fold2"].startswith("test") for row in rows]


def test_isic_pixels_are_the_file_padded_to_a_square(originals: dict[str, Path]) -> None:
    dataset = opened(ISIC, originals[ISIC], patient="image", image_size=20)
    name = rows_of(ISIC, originals[ISIC])[3]["image"]
    with Image.open(originals[ISIC] / "ISIC_2019_Training_Input_preprocessed" / f"{name}.jpg") as file:
        wanted = np.moveaxis(np.asarray(file), -1, 0)
    assert np.array_equal(dataset.images[3, :, 2:18], wanted)
    assert dataset.images[3, :, :2].max() == 0


def test_untorn_by_hand() -> None:
    patients = np.array(["a", "a", "b", "c", "b", "b"])
    split = np.array(["train", "train", "test", "train", "train", "test"])
    assert untorn(patients, split).tolist() == [True, True, True, True, False, True]


def test_isic_without_lesions_says_the_two_ways_on(laid: Laid) -> None:
    root = laid(ISIC)
    (root / "ISIC_2019_Training_Metadata.csv").unlink()
    with pytest.raises(DataError, match=r"no ISIC_2019_Training_Metadata\.csv.*data\.patient=image"):
        opened(ISIC, root)
    assert len(opened(ISIC, root, patient="image")) == len(rows_of(ISIC, root))


def test_isic_lesions_must_be_known(laid: Laid) -> None:
    root = laid(ISIC)
    path = root / "ISIC_2019_Training_Metadata.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-3]) + "\n")
    with pytest.raises(DataError, match="2 of 108 images of train_test_split have no lesion"):
        opened(ISIC, root)
    path.write_text("image,lesion\nx,y\n")
    with pytest.raises(DataError, match="no column 'lesion_id'"):
        opened(ISIC, root)


def test_ixi_keeps_hospitals_division_and_subjects(originals: dict[str, Path]) -> None:
    dataset = opened(IXI, originals[IXI])
    assert dataset.site_names == ("Guys", "HH", "IOP")
    assert dataset.mask_classes == ("background", "brain")
    assert len(dataset) == 12 * 5
    assert dataset.patients.tolist() == np.repeat(np.arange(2, 14), 5).astype("U").tolist()
    assert dataset.sites.tolist() == np.repeat(np.arange(12) % 3, 5).tolist()
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [0] * 45 + [2] * 15


def test_ixi_mask_lies_on_its_slice(originals: dict[str, Path]) -> None:
    """The box of subject 1 spans x 1-3, y 2-4, z 1-3 of 6 × 8 × 5 voxels; a slice is seen from the feet, front up."""
    masks = opened(IXI, originals[IXI], image_size=8).masks
    assert masks is not None
    wanted = np.zeros((5, 8, 8), dtype=np.uint8)
    wanted[1:4, 3:6, 3:6] = 1  # rows are 7 - y, columns are 5 - x behind a margin of 1
    assert np.array_equal(masks[5:10], wanted)


@pytest.mark.parametrize("most", [1, 2, 4])
def test_slices_are_thinned_alike_in_image_and_mask(originals: dict[str, Path], most: int) -> None:
    every, some = opened(IXI, originals[IXI]), opened(IXI, originals[IXI], max_images_per_patient=most)
    chosen = {1: [2], 2: [1, 3], 4: [0, 1, 3, 4]}[most]
    rows = np.concatenate([np.array(chosen) + 5 * subject for subject in range(12)])
    assert np.array_equal(some.images, every.images[rows])
    assert every.masks is not None
    assert some.masks is not None
    assert np.array_equal(some.masks, every.masks[rows])


def test_ixi_folders_and_table_must_agree(laid: Laid) -> None:
    root = laid(IXI)
    change(IXI, root, 4, Manufacturer="2")
    with pytest.raises(DataError, match="row 5 is a subject of IOP, and IXI_sample says HH"):
        opened(IXI, root)
    change(IXI, root, 4, Manufacturer="1")
    folders = sorted((root / "IXI_sample").iterdir())
    shutil.move(folders[0], root / "away")
    with pytest.raises(DataError, match="row 1 is a subject of Guys, and IXI_sample has no folder of that subject"):
        opened(IXI, root)
    benchmark_folders.write_csv(root / TABLES[IXI], list(rows_of(IXI, root))[2:])
    with pytest.raises(DataError, match="1 of 11 folders of IXI_sample have no row"):
        opened(IXI, root)
    folders[1].rename(folders[1].with_name("IXI3-HH-0801"))
    with pytest.raises(DataError, match="11 folders of subjects, 10 of them named as they should"):
        opened(IXI, root)


@pytest.mark.parametrize("kind", ["T1", "label"])
def test_ixi_subject_has_one_volume_of_each_kind(laid: Laid, kind: str) -> None:
    root = laid(IXI)
    (file,) = (root / "IXI_sample" / "IXI002-Guys-0800" / kind).iterdir()
    shutil.copy(file, file.with_name("again.nii.gz"))
    with pytest.raises(DataError, match=rf"2 files {kind}/\*\.nii\.gz") as caught:
        opened(IXI, root)
    assert "IXI002" not in str(caught.value)


def test_kits_keeps_sites_and_division(originals: dict[str, Path]) -> None:
    dataset = opened(KITS, originals[KITS])
    assert dataset.site_names == tuple(f"site-{index}" for index in range(6))
    assert dataset.mask_classes == ("background", "kidney", "tumour")
    assert dataset.patients.tolist() == np.repeat([f"case_{index:05}" for index in range(24)], 7).tolist()
    assert dataset.sites.tolist() == np.repeat(np.arange(24) % 6, 7).tolist()
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [0] * 126 + [2] * 42


def test_kits_window_is_in_hounsfield_units(originals: dict[str, Path]) -> None:
    """Soft tissue keeps its brightness from scan to scan, whatever metal or air lies beside it."""
    images = opened(KITS, originals[KITS], image_size=10).images
    volume = nibabel.load(originals[KITS] / "data/case_00002/imaging.nii.gz")
    wanted = (np.asarray(volume.dataobj) + 79) / (304 + 79)  # type: ignore[attr-defined]
    slices = wanted.clip(0, 1)[::-1, ::-1].transpose(2, 1, 0)
    assert np.allclose(images[14:21, 0], slices, atol=1e-6)
    assert 0 < (images == 0).mean() < 1
    assert 0 < (images == 1).mean() < 1


def test_wilds_keeps_hospitals_and_patients(originals: dict[str, Path]) -> None:
    dataset = opened(WILDS, originals[WILDS])
    rows = rows_of(WILDS, originals[WILDS])
    assert dataset.site_names == tuple(f"hospital-{index}" for index in range(5))
    assert dataset.classes == ("normal", "tumour")
    assert dataset.patients.tolist() == [row["patient"] for row in rows]
    assert dataset.sites.tolist() == [int(row["center"]) for row in rows]
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [int(row["tumor"]) for row in rows]
    assert dataset.splits is None
    slide = "patient_007_node_1"
    with Image.open(originals[WILDS] / f"patches/{slide}/patch_{slide}_x_64_y_96.png") as file:
        assert np.array_equal(dataset.images[30], np.moveaxis(np.asarray(file), -1, 0))


def test_wilds_opens_only_the_patches_it_keeps(laid: Laid) -> None:
    root = laid(WILDS)
    slide = root / "patches" / "patient_000_node_1"
    for x in (0, 64):
        (slide / f"patch_patient_000_node_1_x_{x}_y_96.png").unlink()
    assert len(opened(WILDS, root, max_images_per_patient=2)) == 30  # of four, the second and the fourth
    with pytest.raises(DataError, match="the image of row 1 is missing"):
        opened(WILDS, root)


def test_wilds_official_hospitals_are_held_out(originals: dict[str, Path]) -> None:
    federation = open_federation(settings(WILDS, originals[WILDS], held_out="hospital-1, hospital-2"))
    assert [site.name for site in federation.sites if site.role == "source"] == [
        "hospital-0",
        "hospital-3",
        "hospital-4",
    ]


def test_slides_keep_hospitals_labels_and_the_official_test(originals: dict[str, Path]) -> None:
    dataset, rows = opened(SLIDES, originals[SLIDES]), rows_of(SLIDES, originals[SLIDES])
    assert (dataset.kind, dataset.site_names, dataset.classes) == ("bags", ("RUMC", "UMCU"), ("normal", "tumour"))
    assert dataset.sites.tolist() == [0] * 12 + [1] * 12
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [int(row["label"]) for row in rows]
    assert dataset.splits is not None
    assert dataset.splits.tolist() == ([0] * 8 + [2] * 4) * 2
    assert dataset.patients.tolist() == [row["slide_name"].removesuffix(".tif") for row in rows]


def test_slides_are_bags_of_the_tiles_in_the_files(originals: dict[str, Path]) -> None:
    bags = opened(SLIDES, originals[SLIDES]).images[..., 0]
    assert bags.shape == (24, 1 + 7, 8)
    few, many = np.load(originals[SLIDES] / "normal_002.tif.npy"), np.load(originals[SLIDES] / "test_004.tif.npy")
    assert (len(few), len(many)) == (4, 14)
    assert bags[1, 0].tolist() == [1] * 4 + [0] * 4
    assert np.array_equal(bags[1, 1:, :4].T, few)
    assert not bags[1, 1:, 4:].any()
    assert bags[11, 0].all()
    assert np.array_equal(bags[11, 1:].T, many[[0, 2, 4, 6, 7, 9, 11, 13]])  # the middle of each eighth of 14


def test_slides_of_a_class_need_no_other_file(laid: Laid) -> None:
    root = laid(SLIDES)
    (root / "tumor_001.tif.npy").unlink()
    dataset = opened(SLIDES, root, classes="normal")
    assert dataset.classes == ("normal",)
    assert len(dataset) == 12
    with pytest.raises(DataError, match="1 of 24 slides have no"):
        opened(SLIDES, root)


@pytest.mark.parametrize("name", MAKERS)
def test_no_patient_on_two_sides_and_the_official_test_is_the_test(originals: dict[str, Path], name: str) -> None:
    dataset, federation = opened(name, originals[name]), open_federation(settings(name, originals[name]))
    for index, site in enumerate(federation.sites):
        parts = [set(getattr(site, part).patients.tolist()) for part in ("train", "val", "test")]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts))
        if dataset.splits is not None:
            official = dataset.patients[(dataset.sites == index) & (dataset.splits == 2)]
            assert parts[2] == set(official.tolist())


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_missing_is_named(laid: Laid, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.path is empty\. The {name} data set needs the folder"):
        opened(name, "")
    with pytest.raises(DataError, match=r"there is no folder .*docs/reference/benchmarks\.md"):
        opened(name, "/nowhere/at/all")
    root = laid(name)
    table = root / TABLES[name]
    content = table.read_text()
    table.unlink()
    with pytest.raises(DataError, match=rf"holds no {TABLES[name]}\. Put that file there"):
        opened(name, root)
    for column in MUST_HAVE[name]:
        table.write_text(content.replace(column, "other", 1))
        with pytest.raises(DataError, match=rf"{TABLES[name]}: there is no column '{column}'.* There are: "):
            opened(name, root)
    table.write_text(content.splitlines()[0] + "\n")
    with pytest.raises(DataError, match="has no row"):
        opened(name, root)


MUST_HAVE = {
    ISIC: ("image", "target", "center", "fold2"),
    IXI: ("Patient ID", "Manufacturer", "Split"),
    KITS: ("case_ids", "site_ids", "train_test_split_silo"),
    WILDS: ("patient", "node", "x_coord", "y_coord", "tumor", "center"),
    SLIDES: ("label", "hospital_corrected", "slide_name"),
}


@pytest.mark.parametrize(
    ("name", "cells", "message"),
    [
        (ISIC, {"center": "6", "fold2": "train_6"}, "'center' holds '6'. Allowed are 0, 1, 2, 3, 4, 5"),
        (ISIC, {"fold2": "train_3"}, "'fold2' holds 'train_3' in row 1, whose centre is '0'"),
        (ISIC, {"fold2": "val_0"}, "Allowed are train_0 and test_0"),
        (ISIC, {"target": "8"}, "labels run from 0 to 8 and there are 8 classes"),
        (ISIC, {"image": "../../secret"}, "no lesion"),
        (IXI, {"Manufacturer": "3"}, "'Manufacturer' holds '3'. Allowed are 0, 1, 2"),
        (IXI, {"Split": "val"}, "'Split' holds 'val'. Allowed are train, test"),
        (IXI, {"Patient ID": ""}, "'Patient ID' is empty in 1 rows"),
        (KITS, {"site_ids": "9", "train_test_split_silo": "train_9"}, "'site_ids' holds '9'. Allowed are 0, 1"),
        (KITS, {"case_ids": "case_00999"}, "the image of row 1 is missing"),
        (KITS, {"case_ids": "../data/case_00001"}, "1 rows name an image that stands in an earlier row"),
        (WILDS, {"center": "5"}, "'center' holds '5'. Allowed are 0, 1, 2, 3, 4"),
        (WILDS, {"tumor": "2"}, "labels run from 0 to 2 and there are 2 classes"),
        (WILDS, {"x_coord": "1"}, "the image of row 1 is missing"),
        (SLIDES, {"label": "2"}, "'label' holds '2'. Allowed are 0, 1"),
        (SLIDES, {"label": "1"}, "the slide of row 1 is called 'normal' and its label is 1"),
        (SLIDES, {"hospital_corrected": "2.0"}, "'hospital_corrected' holds '2.0'. Allowed are 0.0, 1.0"),
        (SLIDES, {"slide_name": "lesion_001.tif"}, "the slide of row 1 is called 'lesion'"),
        (SLIDES, {"slide_name": "normal_002.tif"}, "slides stand in two rows"),
        (SLIDES, {"slide_name": "normal_099.tif"}, "1 of 24 slides have no `.npy` in .*, the first in row 1"),
    ],
)
def test_cells_that_cannot_be(laid: Laid, name: str, cells: dict[str, str], message: str) -> None:
    root = laid(name)
    change(name, root, 0, **cells)
    with pytest.raises(DataError, match=message):
        opened(name, root)


def test_damaged_scan_and_mask_of_another_depth(laid: Laid) -> None:
    root = laid(KITS)
    volume = root / "data/case_00003/segmentation.nii.gz"
    benchmark_folders.volume(volume, np.zeros((10, 10, 5), dtype=np.uint8))
    for most in (0, 3):
        with pytest.raises(DataError, match="row 4: the mask is 5 × 10 × 10 and the image 7 × 10 × 10"):
            opened(KITS, root, max_images_per_patient=most)
    volume.write_bytes(b"no volume")
    with pytest.raises(DataError, match="row 4: the file cannot be read as an image"):
        opened(KITS, root)


def test_classes_are_chosen_as_everywhere(originals: dict[str, Path]) -> None:
    dataset = opened(ISIC, originals[ISIC], classes="NV, MEL")
    assert dataset.classes == ("NV", "MEL")
    assert dataset.labels is not None
    assert set(dataset.labels.tolist()) == {0, 1}
    with pytest.raises(UnknownNameError, match="Did you mean 'MEL'"):
        opened(ISIC, originals[ISIC], classes="ME")
