"""Archives: what is written is read, choices do what they say, bad content is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from common.config import DataSection
from common.data.archive import archive, read_archive, write_archive
from common.data.base import Dataset
from common.errors import ConfigError, DataError, UnknownNameError

Make = Callable[..., Dataset]
Settings = Callable[..., DataSection]
FUZZ = hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(sidecar: Any = None, drop: tuple[str, ...] = (), **arrays: Any) -> Path:
        """Six grey images at two centres, changed by `arrays`; `sidecar` is JSON text or a table."""
        columns = {
            "images": np.arange(96, dtype=np.uint8).reshape(6, 4, 4),
            "labels": np.array([0, 1, 0, 1, 0, 1], dtype=np.uint8),
            "centre": np.array([0, 0, 0, 1, 1, 1], dtype=np.int16),
        } | arrays
        path = tmp_path / "six.npz"
        np.savez(path, **{name: array for name, array in columns.items() if name not in drop})
        if sidecar is not None:
            text = sidecar if isinstance(sidecar, str) else json.dumps(sidecar)
            path.with_suffix(".json").write_text(text)
        return path

    return write


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_round_trip(tmp_path: Path, make_dataset: Make, data_settings: Settings, channels: int, dtype: type) -> None:
    dataset = make_dataset()
    images = np.random.default_rng(0).integers(0, 256, (len(dataset), channels, 8, 8))
    splits = np.array([sum(map(ord, name)) % 3 for name in dataset.patients], dtype=np.int8)
    scale = 255 if dtype == np.float32 else 1
    dataset = make_dataset(images=(images / scale).astype(dtype), splits=splits)
    write_archive(tmp_path / "tiny.npz", dataset)
    assert read_archive(tmp_path / "tiny.npz", data_settings()).digest() == dataset.digest()


def test_round_trip_of_masks_alone_and_of_findings(tmp_path: Path, make_dataset: Make, data_settings: Settings) -> None:
    findings = np.random.default_rng(0).integers(0, 2, (len(make_dataset()), 3)).astype(np.uint8)
    for dataset in (make_dataset(labels=None, classes=()), make_dataset(labels=findings, masks=None, mask_classes=())):
        write_archive(tmp_path / "tiny.npz", dataset)
        again = read_archive(tmp_path / "tiny.npz", data_settings())
        assert again.digest() == dataset.digest()
        assert again.licence == "CC0"


def test_written_name_must_end_in_npz(tmp_path: Path, make_dataset: Make) -> None:
    with pytest.raises(DataError, match=r"ends in `\.npz`"):
        write_archive(tmp_path / "tiny.zip", make_dataset())


def test_without_sidecar(save: Callable[..., Path], data_settings: Settings) -> None:
    dataset = read_archive(save(), data_settings())
    assert dataset.classes == ("0", "1")
    assert dataset.site_names == ("centre-0", "centre-1")
    assert dataset.name == "six"
    assert len(np.unique(dataset.patients)) == 6


def test_without_centre_the_file_is_the_site(save: Callable[..., Path], data_settings: Settings) -> None:
    assert read_archive(save(drop=("centre",)), data_settings()).site_names == ("six",)


def test_names_from_the_sidecar(save: Callable[..., Path], data_settings: Settings) -> None:
    sidecar = {
        "classes": {"1": "sick", "0": "well"},
        "centres": ["north (Aabenraa, 1.5 T)", "south"],
        "licence": {"north": "CC0", "south": "CC BY 4.0"},
    }
    dataset = read_archive(save(sidecar), data_settings())
    assert dataset.classes == ("well", "sick")
    assert dataset.site_names == ("north", "south")
    assert dataset.licence == "north: CC0; south: CC BY 4.0"


def test_short_site_names_stay_apart(save: Callable[..., Path], data_settings: Settings) -> None:
    dataset = read_archive(save({"centres": ["city (east)", "City, west"]}), data_settings())
    assert dataset.site_names == ("city (east)", "City; west")


@pytest.mark.parametrize("column", ["patient", "lesion", "video"])
def test_patient_is_found(save: Callable[..., Path], data_settings: Settings, column: str) -> None:
    dataset = read_archive(save(**{column: np.array([5, 5, 6, 7, 7, 7])}), data_settings())
    assert dataset.patients.tolist() == ["5", "5", "6", "7", "7", "7"]


def test_two_eyes_are_one_patient(save: Callable[..., Path], data_settings: Settings) -> None:
    path = save(ids=np.array(["Image_01L", "Image_01R", "Image_02L", "01_dr", "01_h", "33"]))
    dataset = read_archive(path, data_settings(patient="ids", patient_pattern="^(.*?)[LR]?$"))
    assert dataset.patients.tolist() == ["Image_01", "Image_01", "Image_02", "01_dr", "01_h", "33"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"patient": "ids", "patient_pattern": "^(.*"}, ConfigError, "no regular expression"),
        ({"patient": "ids", "patient_pattern": "^.*$"}, ConfigError, "has no group"),
        ({"patient": "ids", "patient_pattern": r"Image_(\d+)"}, DataError, "no patient in 1 of 6 names"),
        ({"patient": "idz"}, DataError, "Did you mean 'ids'"),
        ({"patient": "images"}, DataError, "one text or integer per image"),
        ({"patient_pattern": "(.)"}, DataError, "Name the column in data.patient"),
        ({"label": "labelz"}, DataError, "Did you mean 'labels'"),
        ({"label": "score"}, DataError, "Allowed are integers or text"),
        ({"mask": "mask"}, DataError, "data.mask: there is no 'mask'"),
        ({"mask": "score"}, DataError, "class indices 0 to 255"),
        ({"classes": "1,2"}, UnknownNameError, "class '2' is not known"),
        ({"classes": "1,1"}, ConfigError, "names a class twice"),
    ],
)
def test_choices_that_cannot_be(
    save: Callable[..., Path], data_settings: Settings, changes: dict[str, str], error: type[Exception], message: str
) -> None:
    ids = np.array(["Image_1", "Image_2", "Image_3", "Image_4", "Image_5", "x"])
    with pytest.raises(error, match=message):
        read_archive(save(ids=ids, score=np.linspace(0, 1, 6)), data_settings(**changes))


def test_classes_are_kept_and_renumbered_in_the_given_order(save: Callable[..., Path], data_settings: Settings) -> None:
    path = save({"classes": ["nv", "mel", "bcc", "df"]}, labels=np.array([0, 1, 2, 1, 0, 2]))
    dataset = read_archive(path, data_settings(classes="BCC, nv"))
    assert dataset.classes == ("bcc", "nv")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [1, 0, 1, 0]
    assert dataset.images[:, 0, 0, 0].tolist() == [0, 32, 64, 80]


def test_class_without_images_stays(save: Callable[..., Path], data_settings: Settings) -> None:
    assert read_archive(save({"classes": ["a", "b", "none"]}), data_settings()).classes == ("a", "b", "none")


def test_findings_are_chosen_by_column(save: Callable[..., Path], data_settings: Settings) -> None:
    labels = np.eye(6, 3, dtype=np.uint8)
    dataset = read_archive(save({"classes": ["a", "b", "c"]}, labels=labels), data_settings(classes="c,a"))
    assert dataset.labels is not None
    assert np.array_equal(dataset.labels, labels[:, [2, 0]])


def test_other_label_array_with_unknown_values(save: Callable[..., Path], data_settings: Settings) -> None:
    path = save(
        {"condition": {"-1": "not given", "0": "healthy", "1": "ill"}}, condition=np.array([-1, 0, 1, 1, 0, -1])
    )
    with pytest.raises(DataError, match=r"2 images have a negative label.*healthy, ill"):
        read_archive(path, data_settings(label="condition"))
    dataset = read_archive(path, data_settings(label="condition", classes="healthy,ill"))
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 1, 1, 0]


def test_labels_as_text(save: Callable[..., Path], data_settings: Settings) -> None:
    dataset = read_archive(save(labels=np.array(["b", "a", "b", "a", "b", "a"])), data_settings())
    assert dataset.classes == ("a", "b")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [1, 0, 1, 0, 1, 0]


def test_masks_of_0_and_255_are_0_and_1(save: Callable[..., Path], data_settings: Settings) -> None:
    masks = np.zeros((6, 4, 4), dtype=np.uint8)
    masks[2, 1] = 255
    dataset = read_archive(save(masks=masks), data_settings())
    assert dataset.masks is not None
    assert np.array_equal(dataset.masks, masks > 0)
    assert dataset.mask_classes == ("background", "foreground")


def test_images_are_resized_with_their_masks(save: Callable[..., Path], data_settings: Settings) -> None:
    path = save(images=np.zeros((6, 10, 6, 3), dtype=np.uint8), masks=np.ones((6, 10, 6), dtype=np.uint8))
    dataset = read_archive(path, data_settings(image_size=5))
    assert dataset.images.shape == (6, 3, 5, 5)
    assert dataset.masks is not None
    assert dataset.masks.shape == (6, 5, 5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_float32(save: Callable[..., Path], data_settings: Settings, dtype: type) -> None:
    images = (np.arange(96).reshape(6, 4, 4) / 96).astype(dtype)
    assert np.allclose(read_archive(save(images=images), data_settings()).images[:, 0], images, atol=1e-3)


NAN = np.zeros((6, 4, 4), dtype=np.float32)
NAN[3, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((6, 4, 4), dtype=np.uint16)}, "dtype uint16.*rescale"),
        ({"images": np.zeros((6, 4, 4), dtype=bool)}, "dtype bool"),
        ({"images": np.zeros((6, 4, 4, 4, 3), dtype=np.uint8)}, "taken slice by slice"),
        ({"images": np.zeros((6, 16), dtype=np.uint8)}, r"shape \(6, 16\)"),
        ({"images": np.zeros((6, 0, 4), dtype=np.uint8)}, r"shape \(6, 0, 4\)"),
        ({"images": np.zeros((0, 4, 4), dtype=np.uint8)}, "labels has 6 rows and images has 0"),
        ({"images": NAN}, "1 images hold NaN"),
        ({"images": NAN + 2}, "NaN"),
        ({"images": np.full((6, 4, 4), 200.0)}, r"Allowed is \[0, 1\]; rescale"),
        ({"labels": np.array([0, 1, 0, 1, 0, 7])}, "labels run from 0 to 7"),
        ({"labels": np.array([0, 1, 0, 1, 0])}, "labels has 5 rows"),
        ({"labels": np.full((6, 2), 3)}, "multi-label labels"),
        ({"labels": np.full((6, 3), 1)}, "multi-label labels"),
        ({"labels": np.zeros((6, 2), dtype="M8[s]")}, "Allowed are integers or text"),
        ({"images": np.full((6, 4, 4), 1e300)}, "6 images hold NaN or infinite"),
        ({"labels": np.array([0, 1, np.nan, 1, 0, 1])}, "dtype float64"),
        ({"labels": np.array(["well", "sick", "wel", "well", "sick", "sick"])}, "holds 'wel'. Did you mean 'well'"),
        ({"masks": np.zeros((6, 5, 5), dtype=np.uint8)}, "Both need the same size"),
        ({"masks": np.zeros((5, 4, 4), dtype=np.uint8)}, "masks has 5 rows"),
        ({"masks": np.full((6, 4, 4), 9, dtype=np.uint8)}, "masks hold the value 9"),
        ({"masks": np.full((6, 4, 4), -1)}, "class indices 0 to 255"),
        ({"masks": np.full((6, 4, 4), 0.5)}, "class indices 0 to 255"),
        ({"centre": np.array([0, 0, 0, 1, 1, 2])}, "site indices run from 0 to 2"),
        ({"centre": np.array([0, 0, 0, 1, 1, -1])}, "site indices run from -1"),
        ({"centre": np.array([0.0, 0, 0, 1, 1, 1])}, "Allowed are integers or text"),
        ({"patient": np.arange(5)}, "patients has 5 rows"),
        ({"patient": np.array(1)}, "one text or integer per image"),
        ({"patient": np.array([b"\xff"] * 6)}, "one text or integer per image"),
        ({"split": np.array([0, 1, 2, 0, 1, 5])}, "array 'split'"),
        ({"split": np.array([0, 1, 2, 0, 1, 2]), "patient": np.array([1, 1, 2, 3, 4, 5])}, "1 of 5 patients"),
        ({"labels": np.array([0, None] * 3, dtype=object)}, "Python objects"),
    ],
)
def test_bad_content(
    save: Callable[..., Path], data_settings: Settings, arrays: dict[str, np.ndarray], message: str
) -> None:
    path = save({"classes": ["well", "sick"], "centres": ["a", "b"], "mask_classes": ["no", "yes"]}, **arrays)
    with pytest.raises(DataError, match=message):
        read_archive(path, data_settings())


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ("{", "no readable JSON"),
        ("[1]", "holds a list"),
        ("[" * 100_000, "no readable JSON"),
        ({"classes": {"0": "a", "2": "b"}}, "indices 0, 1, 2"),
        ({"classes": {"a": "a", "b": "b"}}, "indices 0, 1, 2"),
        ({"classes": {}}, "indices 0, 1, 2"),
        ({"classes": "a"}, "list of names"),
        ({"classes": [["a"], ["b"]]}, "list of names"),
        ({"classes": ["a", "a"]}, "empty or equal"),
        ({"centres": ["a", " "]}, "empty or equal"),
    ],
)
def test_bad_sidecar(save: Callable[..., Path], data_settings: Settings, sidecar: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_archive(save(sidecar), data_settings())


def test_tables_are_refused(save: Callable[..., Path], data_settings: Settings) -> None:
    with pytest.raises(DataError, match=r"no array 'images'.*features"):
        read_archive(save(drop=("images",), features=np.zeros((6, 3))), data_settings())


def test_path_must_be_given(data_settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"data\.path is empty"):
        archive(data_settings())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=3), children, max_size=4),
    max_leaves=8,
)


@FUZZ
@given(sidecar=st.dictionaries(st.sampled_from(["classes", "centres", "licence", "name", "mask_classes"]), JSON))
def test_any_sidecar_opens_or_is_refused(save: Callable[..., Path], data_settings: Settings, sidecar: Any) -> None:
    try:
        dataset = read_archive(save(sidecar), data_settings())
    except DataError:
        return
    assert len(dataset) == 6


DTYPES = ["u1", "i2", "i8", "u8", "f2", "f8", "?", "U3", "S3", "c16", "M8[s]", "V4"]


@FUZZ
@given(
    name=st.sampled_from(["images", "labels", "centre", "masks", "patient", "split"]),
    shape=st.lists(st.integers(0, 6), max_size=5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_any_array_opens_or_is_refused(
    save: Callable[..., Path], data_settings: Settings, name: str, shape: list[int], dtype: str, seed: int
) -> None:
    bits = np.random.default_rng(seed).integers(0, 128, int(np.prod(shape)) * np.dtype(dtype).itemsize, dtype=np.uint8)
    if dtype.startswith("U"):
        array = bits.astype("U3")[: int(np.prod(shape))].reshape(shape)
    else:
        array = bits.view(dtype).reshape(shape)
    try:
        dataset = read_archive(save(**{name: array}), data_settings(image_size=3))
    except DataError:
        return
    dataset.check()


def test_the_documented_example_runs(tmp_path: Path, data_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[4] / "docs/reference/archive.md"
    example = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(page), "exec"), {})
    dataset = read_archive(tmp_path / "skin.npz", data_settings())
    assert dataset.images.shape == (40, 3, 64, 64)
    assert dataset.site_names == ("Bern", "Graz")
