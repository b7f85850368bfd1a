"""The run folder: what is saved comes back; what is damaged is refused in words."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from common.errors import DataError, RunFolderError, UnknownNameError
from simulations import results as module
from simulations.overlay import ARRAYS, WORDS, Overlay
from simulations.results import RECORD, Results, load_results, save
from simulations.tables import TABLES, check_table, make_table, schema
from tests.made_results import made_results


def test_what_is_saved_comes_back(tmp_path: Path):
    made = made_results()
    save(made, tmp_path / "run")
    loaded = load_results(tmp_path / "run")
    assert loaded.record == made.record
    assert loaded.folder == tmp_path / "run"
    for name in TABLES:
        assert loaded.tables[name].schema == schema(name)
        for column in loaded.tables[name].column_names:
            np.testing.assert_array_equal(loaded.tables[name][column].to_numpy(), made.tables[name][column].to_numpy())
    assert len(loaded.overlays) == len(made.overlays)
    for mine, theirs in zip(loaded.overlays, made.overlays, strict=True):
        assert [getattr(mine, word) for word in WORDS] == [getattr(theirs, word) for word in WORDS]
        for array in ARRAYS:
            np.testing.assert_array_equal(getattr(mine, array), getattr(theirs, array))


def test_csv_tells_the_same_as_parquet(tmp_path: Path):
    made = made_results()
    save(made, tmp_path)
    read = pyarrow.csv.read_csv(tmp_path / "tables/headline.csv")
    assert read["site"].to_pylist() == made.tables["headline"]["site"].to_pylist()
    np.testing.assert_allclose(read["value"].to_numpy(), made.tables["headline"]["value"].to_numpy(), rtol=1e-12)


def test_saving_leaves_no_temporary_file_and_what_json_cannot_say_is_null(tmp_path: Path):
    made = made_results()
    made.record["data"]["sites"][0]["positive_share"] = float("nan")
    made.record["seconds"]["training"] = np.float64(3.5)
    save(made, tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert record["data"]["sites"][0]["positive_share"] is None
    assert record["seconds"]["training"] == 3.5


def test_a_crash_while_saving_leaves_the_old_run_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(made_results(seed=1), tmp_path)
    before = (tmp_path / "run.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(RunFolderError, match=r"No space left on device\. Free space"):
        save(made_results(seed=2), tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before
    load_results(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "run.json").unlink(), "holds no run.json"),
        (lambda run: (run / "run.json").write_text("{"), "is damaged"),
        (lambda run: (run / "run.json").write_text("[]"), "is no record of a run"),
        (lambda run: (run / "tables/matrix.parquet").unlink(), "matrix.parquet is missing"),
        (lambda run: (run / "overlays.npz").write_bytes(b"PK"), "overlays.npz is not what run.json says"),
        (lambda run: _flip(run / "tables/headline.parquet"), "headline.parquet is not what run.json says"),
        (lambda run: _edit(run, "format", 99), "has format 99"),
        (lambda run: _edit(run, "metrics", []), "'metrics' is empty"),
        (lambda run: _edit(run, "data", None), "'data'"),
    ],
)
def test_a_damaged_folder_is_refused_in_words(tmp_path: Path, damage, words: str):
    run = save(made_results(), tmp_path / "run")
    damage(run)
    with pytest.raises(RunFolderError, match=words):
        load_results(run)


def test_a_folder_that_is_missing_is_refused(tmp_path: Path):
    with pytest.raises(RunFolderError, match="is not there"):
        load_results(tmp_path / "nothing")


def test_the_record_must_have_every_key():
    record = made_results().record
    for key in RECORD:
        with pytest.raises(DataError, match=f"'{key}'.*missing"):
            Results(record={k: v for k, v in record.items() if k != key})


def test_tables_must_have_their_columns():
    record = made_results().record
    with pytest.raises(UnknownNameError, match="Did you mean 'headline'"):
        Results(record=record, tables={"headlines": pa.table({})})
    with pytest.raises(DataError, match="Allowed are exactly"):
        Results(record=record, tables={"add": pa.table({"site_a": ["x"]})})
    good = {"site_a": ["x"], "site_b": ["y"], "add_w": [0.5]}
    assert check_table("add", pa.table(dict(reversed(good.items())))).column_names == list(good)
    with pytest.raises(DataError, match="add_w"):
        check_table("add", pa.table({**good, "add_w": ["far"]}))
    with pytest.raises(DataError, match="Allowed is NaN"):
        check_table("add", pa.table({**good, "add_w": pa.array([None], pa.float64())}))
    with pytest.raises(DataError, match="row 0"):
        make_table("add", [{"site_a": "x"}])
    with pytest.raises(DataError, match="add_w"):
        make_table("add", [{**{k: v[0] for k, v in good.items()}, "add_w": "far"}])


def test_rows_can_be_asked_for_by_value():
    made = made_results()
    rows = made.rows("headline", method="federated", metric="auroc", site="St. Anna")
    assert len(rows) == 1
    assert rows[0]["n"] > 0
    assert made.sites("held-out") == ["Riverside"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": np.zeros((4, 4), np.float32)}, "image is float32"),
        ({"image": np.zeros((4, 4, 2), np.uint8)}, "image is uint8"),
        ({"mask": np.zeros((5, 4), np.uint8)}, "mask is uint8"),
        ({"attention": np.zeros((4, 4), np.float32)}, "sums to 0"),
        ({"attention": np.full((4, 4), np.nan, np.float32)}, "sums to nan"),
        ({"attention": np.full((2, 8), 1 / 16, np.float32)}, r"attention is float32 \(2, 8\)"),
    ],
)
def test_an_overlay_that_does_not_fit_is_refused(change, words: str):
    with pytest.raises(DataError, match=words):
        _overlay(**change)


def test_attention_in_the_mask_by_hand():
    mask = np.zeros((4, 4), np.uint8)
    mask[0, :2] = 1
    attention = np.full((4, 4), 0.5 / 14, np.float32)
    attention[0, :2] = 0.25
    energy, lift = _overlay(mask=mask, attention=attention).in_mask()
    assert energy == pytest.approx(0.5)
    assert lift == pytest.approx(0.5 / (2 / 16))
    assert np.isnan(_overlay().in_mask()).all()


def _overlay(**change) -> Overlay:
    usual = {
        "site": "a",
        "role": "source",
        "caption": "",
        "label": "x",
        "probability": float("nan"),
        "attention_site": "gate",
        "image": np.zeros((4, 4), np.uint8),
        "attention": np.full((4, 4), 1 / 16, np.float32),
    }
    return Overlay(**{**usual, **change})


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _edit(run: Path, key: str, value: object) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**record, key: value}), encoding="utf-8")
