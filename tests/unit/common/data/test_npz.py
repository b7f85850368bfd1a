"""Foreign npz files: whatever the bytes, an answer or a DataError."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.data.npz import array_names, read_npz, write_npz
from common.errors import DataError

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def good_bytes() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, images=np.arange(48, dtype=np.uint8).reshape(3, 4, 4), labels=np.array([0, 1, 0]))
    return file.getvalue()


def test_round_trip_and_only_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {"x": np.arange(3), "y": np.array(["a", "bc"])})
    assert read_npz(path)["y"].tolist() == ["a", "bc"]
    assert list(read_npz(path, {"x", "absent"})) == ["x"]
    assert array_names(path) == ["x", "y"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, {"x": np.arange(100)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_failed_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {"x": np.arange(3)})
    old = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(DataError, match="No space left"):
        write_npz(path, {"x": np.arange(4)})
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_writing_into_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written: No such file"):
        write_npz(tmp_path / "none" / "a.npz", {"x": np.arange(3)})


def test_missing_file(tmp_path: Path) -> None:
    for reader in (read_npz, array_names):
        with pytest.raises(DataError, match="there is no file"):
            reader(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip at all", good_bytes()[:-30], good_bytes()[40:]])
def test_not_an_npz_or_cut_short(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"readable npz|damaged"):
        read_npz(path)


def test_damage_inside_is_found_by_its_checksum(tmp_path: Path) -> None:
    content = bytearray(good_bytes())
    content[content.index(b"images.npy") + 40] ^= 0xFF
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'images' is damaged"):
        read_npz(path)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, patient=np.array(["a", None], dtype=object))
    with pytest.raises(DataError, match=r"'patient' holds Python objects, which are never unpickled"):
        read_npz(path)


def test_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    """A claim of a petabyte is refused before any memory is taken."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 1000), }\n"
    entry = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", entry)
    with pytest.raises(DataError, match="promises more"):
        read_npz(path)


@FUZZ
@given(content=st.binary(max_size=400))
def test_random_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_npz(path)


@FUZZ
@given(data=st.data())
def test_damaged_bytes_give_the_arrays_or_a_data_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(good_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.npz"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        arrays = read_npz(path)
    except DataError:
        return
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
