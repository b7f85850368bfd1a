"""Tiny folders with random images, laid out as the public benchmarks lay out theirs."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

SIDE = 16


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def picture(path: Path, seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def volume(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def isic(root: Path, centres: Iterable[int] = range(6)) -> list[dict[str, Any]]:
    """Per centre, lesions of one, two or three images; the images of the first three-image lesion stand on both sides.

    Images are 16 high and 20 wide, as the published preprocessing leaves them oblong. Gives the rows of the split.
    """
    rows, metadata = [], []
    for centre in centres:
        for lesion in range(9):
            for view in range(1 + lesion % 3):
                name = f"ISIC_{centre}{lesion}{view}"
                torn = lesion == 2 and view == 0
                fold = "test" if torn or lesion in (6, 7, 8) else "train"
                target = (lesion + view) % 8
                onehot = {code: float(index == target) for index, code in enumerate(("MEL", "NV", "BCC"))}
                rows.append(
                    {"image": name, **onehot, "target": target, "center": centre}
                    | {"fold": "train", "fold2": f"{fold}_{centre}"}
                )
                metadata.append({"image": name, "age_approx": 50, "lesion_id": f"L{centre}_{lesion}", "sex": "female"})
                picture(root / "ISIC_2019_Training_Input_preprocessed" / f"{name}.jpg", len(rows), (16, 20))
    metadata.append({"image": "ISIC_other", "age_approx": 50, "lesion_id": "", "sex": "male"})
    write_csv(root / "train_test_split", rows)
    write_csv(root / "ISIC_2019_Training_Metadata.csv", metadata)
    return rows


def ixi(root: Path) -> list[dict[str, Any]]:
    """Three hospitals of four subjects, volumes of 6 × 8 × 5 voxels, the brain a box of its own size per subject."""
    rows = []
    for index in range(12):
        hospital = ("Guys", "HH", "IOP")[index % 3]
        subject = f"IXI{index + 2:03}-{hospital}-08{index:02}"
        values = np.random.default_rng(index).normal(200, 40, (6, 8, 5)).astype(np.float32)
        mask = np.zeros((6, 8, 5), dtype=np.uint8)
        mask[1:4, 2 : 4 + index % 4, 1:4] = 1
        volume(root / "IXI_sample" / subject / "T1" / f"{subject}_image.nii.gz", values)
        volume(root / "IXI_sample" / subject / "label" / f"{subject}_label.nii.gz", mask)
        rows.append({"Patient ID": index + 2, "Manufacturer": index % 3, "Split": "test" if index >= 9 else "train"})
    write_csv(root / "metadata_tiny.csv", rows)
    return rows


def kits(root: Path, sites: int = 6) -> list[dict[str, Any]]:
    """Six sites of four cases, 7 slices of 10 × 10; the value of a voxel is its Hounsfield unit."""
    rows = []
    for index in range(4 * sites):
        case, site = f"case_{index:05}", index % sites
        values = np.random.default_rng(index).integers(-1024, 1500, (10, 10, 7)).astype(np.int16)
        mask = np.random.default_rng(index).integers(0, 3, (10, 10, 7)).astype(np.uint8)
        volume(root / "data" / case / "imaging.nii.gz", values)
        volume(root / "data" / case / "segmentation.nii.gz", mask)
        split = "test" if index >= 3 * sites else "train"
        row = {"case_ids": case, "site_ids": site, "train_test_split": split}
        rows.append(row | {"train_test_split_silo": f"{split}_{site}"})
    write_csv(root / "thresholded_sites.csv", rows)
    return rows


def camelyon16(root: Path, features: int = 7) -> list[dict[str, Any]]:
    """Two hospitals of four normal, four tumour and four test slides, 3 to 14 tiles each; the first file is upper case.

    A tile's first feature is its number in the slide; those of tumour have one tile whose second feature is 5.
    """
    rows: list[dict[str, Any]] = []
    for hospital in (0, 1):
        for kind in ("normal", "tumor", "test"):
            for index in range(4):
                slide = f"{kind}_{index + 1 + 100 * hospital:03}.tif"
                label = index % 2 if kind == "test" else int(kind == "tumor")
                random = np.random.default_rng(len(rows))
                tiles = random.random((3 + len(rows) % 12, features), dtype=np.float32)
                tiles[:, 0] = np.arange(len(tiles))
                tiles[len(tiles) // 2, 1] += 5 * label
                np.save(root / f"{slide.capitalize() if not rows else slide}.npy", tiles)
                rows.append(
                    {"label": label, "tumorp1000": 0.01 if label else "", "hospital": f"{hospital}.0"}
                    | {"hospital_corrected": f"{hospital}.0", "slide_name": slide}
                )
    write_csv(root / "metadata.csv", rows)
    return rows


def wilds(root: Path, hospitals: int = 5) -> list[dict[str, Any]]:
    """Five hospitals of three patients with four patches each; `split` draws patches, also of one patient."""
    rows: list[dict[str, Any]] = []
    for patient in range(3 * hospitals):
        for patch in range(4):
            place: Mapping[str, Any] = {"patient": f"{patient:03}", "node": 1, "x_coord": 32 * patch, "y_coord": 96}
            slide = f"patient_{place['patient']}_node_1"
            picture(root / "patches" / slide / f"patch_{slide}_x_{32 * patch}_y_96.png", len(rows))
            rows.append(
                {"": len(rows), **place, "tumor": (patient + patch) % 2, "slide": patient}
                | {"center": patient % hospitals, "split": int(patch == 1)}
            )
    write_csv(root / "metadata.csv", rows)
    return rows
