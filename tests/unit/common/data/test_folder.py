"""A hospital's folder: files of every kind, read as they are meant; every mistake named by its row."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet, table

from common.config import DataSection
from common.data.base import Dataset
from common.data.federation import open_federation
from common.data.folder import folder
from common.data.picture import read_image, read_mask
from common.errors import ConfigError, DataError, UnknownNameError

Rows = list[dict[str, Any]]
Open = Callable[..., Dataset]


def picture(seed: int = 0, size: tuple[int, ...] = (6, 6), top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, size).astype(dtype)


def row(name: str, **cells: Any) -> dict[str, Any]:
    return {"image": name, "patient": name.split(".")[0], "site": "a"} | cells


@pytest.fixture
def open_folder(tmp_path: Path, data_settings: Callable[..., DataSection]) -> Open:
    def opened(rows: Rows | str | None = None, sidecar: str = "", **changes: Any) -> Dataset:
        if isinstance(rows, str):
            (tmp_path / "manifest.csv").write_text(rows)
        elif rows is not None:
            with (tmp_path / "manifest.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        if sidecar:
            (tmp_path / "manifest.json").write_text(sidecar)
        return folder(data_settings(**({"name": "folder", "path": str(tmp_path)} | changes)))

    return opened


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def save_nifti(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


def test_grey_png_is_read_bit_for_bit(tmp_path: Path, open_folder: Open) -> None:
    pixels = picture(size=(4, 6))
    save(tmp_path / "x.png", pixels)
    dataset = open_folder([row("x.png")])
    assert dataset.images.shape == (1, 1, 6, 6)
    assert np.array_equal(dataset.images[0, 0, 1:5], pixels)
    assert dataset.labels is None
    assert dataset.masks is None


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3)]
)
def test_every_mode(tmp_path: Path, open_folder: Open, mode: str, channels: int) -> None:
    name = "x.jpg" if mode == "CMYK" else "x.png"
    save(tmp_path / name, picture(size=(6, 6, 3)), mode)
    dataset = open_folder([row(name)])
    assert dataset.images.dtype == np.uint8
    assert dataset.channels == channels


def test_grey_beside_colour_becomes_colour(tmp_path: Path, open_folder: Open) -> None:
    save(tmp_path / "grey.png", picture(0))
    save(tmp_path / "colour.png", picture(1, (6, 6, 3)))
    dataset = open_folder([row("grey.png"), row("colour.png")])
    assert dataset.channels == 3
    assert np.array_equal(dataset.images[0, 2], picture(0))
    assert np.array_equal(dataset.images[1], np.moveaxis(picture(1, (6, 6, 3)), -1, 0))


def test_16_bit_png_is_scaled_between_percentiles(tmp_path: Path, open_folder: Open) -> None:
    pixels = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    save(tmp_path / "x.png", pixels)
    images = open_folder([row("x.png")]).images
    assert images.dtype == np.float32
    low, high = 0.005 * 9999, 0.995 * 9999
    assert np.allclose(images[0, 0], ((pixels - low) / (high - low)).clip(0, 1), atol=1e-6)


def test_8_bit_beside_16_bit_keeps_its_brightness(tmp_path: Path, open_folder: Open) -> None:
    save(tmp_path / "a.png", picture(0))
    save(tmp_path / "b.png", picture(1, top=65536, dtype=np.uint16))
    assert np.allclose(open_folder([row("a.png"), row("b.png")]).images[0, 0], picture(0) / 255)


def test_nearly_empty_and_constant_deep_images(tmp_path: Path, open_folder: Open) -> None:
    dot = np.zeros((40, 40), dtype=np.uint16)
    dot[3, 3] = 9000
    save(tmp_path / "dot.png", dot)
    save(tmp_path / "flat.png", np.full((40, 40), 1234, dtype=np.uint16))
    images = open_folder([row("dot.png"), row("flat.png")]).images
    assert (images[0].max(), images[0].sum()) == (1, 1)
    assert images[1].max() == 0


def test_photo_is_turned_as_the_camera_was_held(tmp_path: Path, open_folder: Open) -> None:
    photo = Image.fromarray(np.tile(np.arange(0, 240, 15, dtype=np.uint8), (16, 1)))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "x.jpg", quality=95, exif=exif)
    shown = open_folder([row("x.jpg")]).images[0, 0].astype(int)
    assert (np.diff(shown.mean(axis=1)) > 5).all()
    assert np.ptp(shown.mean(axis=0)) < 5


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_volume_gives_its_axial_slices_seen_from_the_feet(tmp_path: Path, open_folder: Open, ending: str) -> None:
    """In canonical orientation x grows to the patient's right; the viewer's left is the right, up is front."""
    volume = picture(0, (5, 5, 3), 1000).astype(np.int16)
    volume[0, 0] = 5000
    save_nifti(tmp_path / f"x{ending}", volume)
    save_nifti(tmp_path / f"m{ending}", (volume > 500).astype(np.uint8))
    dataset = open_folder([row(f"x{ending}", mask=f"m{ending}", label="1")])
    assert dataset.images.shape == (3, 1, 5, 5)
    assert dataset.patients.tolist() == ["x"] * 3
    assert dataset.images[0, 0, 4, 4] == 1
    assert dataset.masks is not None
    for z in range(3):
        for x in range(5):
            for y in range(5):
                assert dataset.masks[z, 4 - y, 4 - x] == (volume[x, y, z] > 500)


def test_orientation_of_storage_does_not_matter(tmp_path: Path, open_folder: Open) -> None:
    """The same head, stored with axes permuted and one flipped, gives the same slices."""
    volume = picture(0, (6, 6, 6), 1000).astype(np.float32)
    save_nifti(tmp_path / "a.nii", volume)
    turned = np.zeros((4, 4))
    turned[0, 2], turned[1, 0], turned[2, 1], turned[3, 3] = -1, 1, 1, 1
    turned[0, 3] = 5
    save_nifti(tmp_path / "b.nii", np.ascontiguousarray(volume[::-1].transpose(1, 2, 0)), turned)
    images = open_folder([row("a.nii"), row("b.nii")]).images
    assert np.array_equal(images[:6], images[6:])


def test_2d_nifti(tmp_path: Path, open_folder: Open) -> None:
    save_nifti(tmp_path / "x.nii", picture(0, (5, 5)).astype(np.float32))
    save_nifti(tmp_path / "y.nii", picture(0, (5, 5, 1, 1)).astype(np.float32))
    images = open_folder([row("x.nii"), row("y.nii")]).images
    assert images.shape == (2, 1, 5, 5)
    assert np.array_equal(images[0], images[1])


def test_masks_of_every_kind(tmp_path: Path, open_folder: Open) -> None:
    wanted = picture(3, top=2)
    for name in "abcd":
        save(tmp_path / f"{name}.png", picture())
    save(tmp_path / "m0.png", wanted)
    save(tmp_path / "m255.png", wanted * 255)
    save(tmp_path / "m1bit.png", wanted.astype(bool))
    save(tmp_path / "mrgb.png", np.repeat(wanted[..., None] * np.uint8(255), 3, axis=2))
    names = ("m0.png", "m255.png", "m1bit.png", "mrgb.png")
    dataset = open_folder([row(f"{image}.png", mask=mask) for image, mask in zip("abcd", names, strict=True)])
    assert dataset.masks is not None
    assert all(np.array_equal(mask, wanted) for mask in dataset.masks)
    assert dataset.mask_classes == ("background", "foreground")


def test_palette_mask_keeps_its_indices(tmp_path: Path, open_folder: Open) -> None:
    wanted = picture(3, top=3)
    image = Image.fromarray(wanted).convert("P")
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 200] + [0] * 759)
    image.save(tmp_path / "m.png")
    save(tmp_path / "x.png", picture())
    dataset = open_folder([row("x.png", mask="m.png")])
    assert dataset.masks is not None
    assert np.array_equal(dataset.masks[0], wanted)
    assert dataset.mask_classes == ("0", "1", "2")


def test_sizes_are_brought_to_one(tmp_path: Path, open_folder: Open) -> None:
    save(tmp_path / "a.png", picture(size=(9, 5)))
    save(tmp_path / "b.png", picture(size=(20, 30)))
    save(tmp_path / "m.png", picture(size=(9, 5), top=2))
    save(tmp_path / "n.png", picture(size=(20, 30), top=2))
    rows = [row("a.png", mask="m.png"), row("b.png", mask="n.png")]
    assert open_folder(rows, image_size=8).images.shape == (2, 1, 8, 8)
    with pytest.raises(DataError, match=r"2 sizes \(30 × 30, 9 × 9\)"):
        open_folder(rows)


@pytest.fixture
def six(tmp_path: Path) -> Rows:
    for index in range(6):
        save(tmp_path / f"i{index}.png", picture(index))
    return [row(f"i{index}.png", site="ab"[index % 2]) for index in range(6)]


def test_labels_by_name_index_and_finding(six: Rows, open_folder: Open) -> None:
    def labelled(values: list[str]) -> Rows:
        return [cells | {"label": value} for cells, value in zip(six, values, strict=True)]

    by_name = open_folder(labelled(["mel", "nv", "nv", "mel", "bcc", "nv"]))
    assert by_name.classes == ("bcc", "mel", "nv")
    assert by_name.labels is not None
    assert by_name.labels.tolist() == [1, 2, 2, 1, 0, 2]
    by_index = open_folder(labelled(["0", "2", "1", "0", "0", "0"]))
    assert by_index.classes == ("0", "1", "2")
    findings = open_folder(labelled(["mass|nodule", "", "mass", "edema", "nodule", ""]))
    assert findings.classes == ("edema", "mass", "nodule")
    assert findings.labels is not None
    assert findings.labels.tolist() == [[0, 1, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_sidecar_fixes_classes_sites_and_licence(six: Rows, open_folder: Open) -> None:
    rows = [cells | {"label": "sick"} for cells in six]
    sidecar = '{"classes": ["well", "sick"], "centres": ["b (Bonn)", "a"], "licence": "CC0", "name": "chest"}'
    with pytest.raises(DataError, match=r"column 'site' holds 'b'"):
        open_folder(rows, sidecar)
    dataset = open_folder(rows, sidecar.replace(" (Bonn)", ""))
    assert (dataset.classes, dataset.site_names) == (("well", "sick"), ("b", "a"))
    assert (dataset.licence, dataset.name) == ("CC0", "chest")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [1] * 6


def test_sidecar_can_ask_for_findings(six: Rows, open_folder: Open) -> None:
    rows = [cells | {"label": value} for cells, value in zip(six, ["mass", "", "", "", "", ""], strict=True)]
    dataset = open_folder(rows, '{"classes": ["edema", "mass"], "multilabel": true}')
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [[0, 1]] + [[0, 0]] * 5


def test_files_of_other_classes_are_not_opened(tmp_path: Path, six: Rows, open_folder: Open) -> None:
    (tmp_path / "i0.png").write_bytes(b"damaged")
    rows = [cells | {"label": str(index % 3)} for index, cells in enumerate(six)]
    dataset = open_folder(rows, classes="2,1")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [1, 0, 1, 0]
    assert dataset.patients.tolist() == ["i1", "i2", "i4", "i5"]
    with pytest.raises(DataError, match="row 1: the file cannot be read"):
        open_folder(rows, classes="0")


def test_official_split_and_pattern(six: Rows, open_folder: Open) -> None:
    splits = ["train", "val", "test", "0", "1", "2"]
    rows = [cells | {"split": split} for cells, split in zip(six, splits, strict=True)]
    assert open_folder(rows).splits.tolist() == [0, 1, 2, 0, 1, 2]  # type: ignore[union-attr]
    with pytest.raises(DataError, match="2 of 2 patients stand in two splits"):
        open_folder(rows, patient_pattern="^(i)")
    with pytest.raises(DataError, match="holds 'tain'"):
        open_folder([rows[0] | {"split": "tain"}])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_byte_order_mark(six: Rows, open_folder: Open, separator: str) -> None:
    lines = [["image", "patient", "site"], *([cells["image"], "007", "a"] for cells in six)]
    dataset = open_folder("\ufeff" + "\r\n".join(separator.join(line) for line in lines) + "\r\n\r\n")
    assert dataset.patients.tolist() == ["007"] * 6


def test_parquet_equals_csv(tmp_path: Path, six: Rows, open_folder: Open) -> None:
    rows = [cells | {"label": str(index % 2)} for index, cells in enumerate(six)]
    from_csv = open_folder(rows)
    (tmp_path / "manifest.csv").unlink()
    columns = {name: [cells[name] for cells in rows] for name in rows[0]}
    parquet.write_table(table(columns | {"label": [0, 1] * 3}), tmp_path / "manifest.parquet")
    assert open_folder().digest() == from_csv.digest()
    assert open_folder(path=str(tmp_path / "manifest.parquet")).digest() == from_csv.digest()


def test_federation_follows_a_changed_manifest(
    tmp_path: Path, six: Rows, open_folder: Open, data_settings: Callable[..., DataSection]
) -> None:
    settings = data_settings(name="folder", path=str(tmp_path))
    open_folder(six)
    before = open_federation(settings)
    assert [site.name for site in before.sites] == ["a", "b"]
    open_folder([cells | {"site": "north"} for cells in six])
    assert [site.name for site in open_federation(settings).sites] == ["north"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "none.png"}, "image of row 1 is missing"),
        ({"image": "../out.png"}, "image of row 1 lies outside"),
        ({"image": "/etc/hostname"}, "image of row 1 lies outside"),
        ({"image": "link.png"}, "image of row 1 lies outside"),
        ({"image": "i1.png"}, "1 rows name an image that stands in an earlier row"),
        ({"image": "./i1.png"}, "1 rows name an image that stands in an earlier row"),
        ({"image": "text.png"}, "row 1: the file cannot be read as an image"),
        ({"image": "short.png"}, "row 1: the file cannot be read as an image"),
        ({"image": "gif.png"}, "row 1: the file cannot be read as an image"),
        ({"image": "short.nii.gz"}, "row 1: the file cannot be read as an image"),
        ({"image": "nan.nii"}, "row 1: the image holds NaN"),
        ({"image": "4d.nii"}, "row 1: the file has 4 dimensions"),
        ({"image": "x.dcm"}, r"type \.dcm\. Allowed are \.png"),
        ({"mask": "small.png"}, "row 1: the mask is 1 × 3 × 3 and the image 1 × 6 × 6"),
        ({"mask": "colour.png"}, "row 1: the mask is in colour"),
        ({"mask": "mask.jpg"}, "row 1: the mask is a JPEG"),
        ({"mask": "half.nii"}, "row 1: the mask holds other values"),
        ({"mask": ""}, "column 'mask' is empty in 1 rows, first in row 1"),
        ({"mask": "none.png"}, "mask of row 1 is missing"),
        ({"patient": " "}, "column 'patient' is empty in 1 rows, first in row 1"),
        ({"label": ""}, "column 'label' is empty in 1 rows"),
        ({"site": ""}, "column 'site' is empty"),
    ],
)
def test_mistakes_in_a_row(tmp_path: Path, six: Rows, open_folder: Open, change: dict[str, str], message: str) -> None:
    save(tmp_path.parent / "out.png", picture())
    (tmp_path / "link.png").symlink_to(tmp_path.parent / "out.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "short.png").write_bytes((tmp_path / "i0.png").read_bytes()[:-30])
    save(tmp_path / "x.gif", picture())
    (tmp_path / "x.gif").rename(tmp_path / "gif.png")
    save_nifti(tmp_path / "nan.nii", np.full((6, 6), np.nan, dtype=np.float32))
    save_nifti(tmp_path / "4d.nii", np.zeros((6, 6, 2, 2), dtype=np.float32))
    save_nifti(tmp_path / "half.nii", np.full((6, 6), 0.5, dtype=np.float32))
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(bytes(600))[:-12])
    (tmp_path / "x.dcm").write_bytes(b"x")
    save(tmp_path / "small.png", picture(size=(3, 3), top=2))
    save(tmp_path / "colour.png", picture(size=(6, 6, 3), top=2))
    save(tmp_path / "mask.jpg", picture(top=2))
    save(tmp_path / "mask.png", picture(top=2))
    rows = [cells | {"label": "x", "mask": "mask.png"} for cells in six]
    with pytest.raises(DataError, match=message) as caught:
        open_folder([rows[0] | change, *rows[1:]])
    assert change.get("image", "-") not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'image'"),
        ("image,patient,site\n", "has no row"),
        ("imag,patient,site\ni0.png,p,a\n", "no column 'image'. Did you mean 'imag'"),
        ("image,patients,site\ni0.png,p,a\n", "no column 'patient'. Did you mean 'patients'"),
        ("image,patient,site\ni0.png,p\n", "cannot be read"),
        ("image,patient,site,site\ni0.png,p,a,b\n", "cannot be read"),
        ('image,patient,site\n"i0.png,p,a\n', "cannot be read"),
    ],
)
def test_bad_manifest(six: Rows, open_folder: Open, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_folder(text)


def test_manifest_that_is_no_text(tmp_path: Path, open_folder: Open) -> None:
    (tmp_path / "manifest.csv").write_bytes(b"\xff\xfe\x00image")
    with pytest.raises(DataError, match="cannot be read"):
        open_folder()
    (tmp_path / "manifest.csv").rename(tmp_path / "manifest.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        open_folder()


def test_no_manifest_two_manifests_no_path(tmp_path: Path, six: Rows, open_folder: Open) -> None:
    with pytest.raises(DataError, match="holds 0 manifests"):
        open_folder()
    (tmp_path / "manifest.parquet").touch()
    with pytest.raises(DataError, match="holds 2 manifests"):
        open_folder(six)
    with pytest.raises(ConfigError, match=r"data\.path is empty"):
        open_folder(path="")


def test_choices_that_cannot_be(six: Rows, open_folder: Open) -> None:
    rows = [cells | {"label": "x"} for cells in six]
    with pytest.raises(ConfigError, match="has no labels"):
        open_folder(six, classes="x")
    with pytest.raises(UnknownNameError, match="class 'y' is not known"):
        open_folder(rows, classes="y")
    with pytest.raises(DataError, match="Did you mean 'label'"):
        open_folder(rows, label="labels")
    with pytest.raises(DataError, match="there is no 'lesionmask'"):
        open_folder(rows, mask="lesionmask")
    with pytest.raises(DataError, match="no column 'mrn'"):
        open_folder(rows, patient="mrn")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_pictures_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["x.png", "deep.png", "x.jpg", "x.nii", "x.nii.gz"]))
    path = tmp_path / name
    if name.startswith("deep"):
        save(path, picture(top=65536, dtype=np.uint16))
    elif "nii" in name:
        save_nifti(path, picture(size=(4, 4, 2)).astype(np.int16))
    else:
        save(path, picture(size=(6, 6, 3)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        images = read_image(path, "row 1")
        mask = read_mask(path, "row 1")
    except DataError:
        return
    assert images.ndim == 4
    assert images.dtype in (np.uint8, np.float32)
    assert mask.dtype == np.uint8
