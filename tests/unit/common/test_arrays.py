"""Arrays: what fits a model, and files that are either whole or refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from common.arrays import (
    all_finite,
    load_arrays,
    misfit,
    model_arrays,
    read_arrays,
    update_between,
    write_arrays,
    write_atomic,
)
from common.errors import ProtocolError, RunFolderError
from tests.federations import same_arrays


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_a_model_goes_out_and_comes_back():
    first, second = model(), model()
    nn.init.ones_(second[0].weight)
    load_arrays(second, model_arrays(first))
    assert same_arrays(model_arrays(first), model_arrays(second))


def test_the_copies_share_no_memory():
    net = model()
    arrays = model_arrays(net)
    load_arrays(net, arrays)
    with torch.no_grad():
        net[0].weight.add_(1)
    assert not np.array_equal(arrays["0.weight"], net[0].weight.detach().numpy())


@pytest.mark.parametrize(
    "change",
    [
        {"0.weight": np.zeros((3, 2), np.float32)},
        {"other": np.zeros(1, np.float32)},
        {"1.num_batches_tracked": np.zeros(1, np.int64)},
    ],
)
def test_arrays_of_another_model_are_refused_by_name(change):
    net = model()
    before = model_arrays(net)
    with pytest.raises(ProtocolError, match=next(iter(change))):
        load_arrays(net, {**before, **change})
    assert same_arrays(model_arrays(net), before)


def test_a_missing_array_is_refused():
    net = model()
    arrays = model_arrays(net)
    del arrays["0.bias"]
    with pytest.raises(ProtocolError, match=r"0\.bias"):
        load_arrays(net, arrays)


def test_an_update_leaves_integer_buffers_out_and_adds_up():
    old = model_arrays(model())
    new = {name: array + 1 for name, array in old.items()}
    update = update_between(new, old)
    assert "1.num_batches_tracked" not in update
    assert all(np.array_equal(update[name], new[name] - old[name]) for name in update)
    assert misfit(update, old) == ""


def test_misfits_have_names():
    old = model_arrays(model())
    good = update_between(old, old)
    nan = good["0.bias"].copy()
    nan[0] = np.nan
    assert misfit({**good, "0.bias": nan}, old) == "not-finite"
    assert misfit({**good, "0.bias": good["0.bias"].astype(np.float64)}, old) == "dtype"
    assert misfit({**good, "0.bias": good["0.bias"][:1]}, old) == "shape"
    assert misfit({**good, "1.num_batches_tracked": np.array(0)}, old) == "shape"
    assert misfit({}, old) == "shape"


def test_a_diverged_model_gives_an_update_that_is_refused_and_no_warning():
    old = {"w": np.array([np.inf, 3e38], np.float32)}
    update = update_between({"w": np.array([np.inf, -3e38], np.float32)}, old)
    assert not all_finite(update)


arrays_ = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
    max_size=4,
)


@settings(max_examples=40)
@given(arrays_, st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_files_bring_back_every_bit(tmp_path_factory, arrays, notes):
    path = tmp_path_factory.getbasetemp() / "arrays.safetensors"
    write_arrays(path, arrays, notes)
    found, texts = read_arrays(path)
    assert texts == notes
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_arrays_in_any_memory_order_are_written_in_theirs(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))[:, ::-1]
    write_arrays(tmp_path / "a", {"a": array}, {})
    np.testing.assert_array_equal(read_arrays(tmp_path / "a")[0]["a"], array)


def test_equal_content_gives_equal_files(tmp_path):
    """So that two runs can be compared by the digests of their files."""
    for name in ("first", "second"):
        notes = {f"note {index}": str(index) for index in range(20)}
        write_arrays(tmp_path / name, {f"array {index}": np.arange(index) for index in range(20)}, notes)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(RunFolderError, match="is missing"):
        read_arrays(tmp_path / "no")


def test_any_changed_byte_is_found(tmp_path):
    """The format itself notices only a damaged header; the digest sees the rest."""
    path = tmp_path / "a.safetensors"
    write_arrays(path, {"weight": np.arange(12, dtype=np.float32)}, {"round": "3"})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(RunFolderError, match="damaged"):
            read_arrays(path)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(RunFolderError, match="damaged"):
            read_arrays(path)


def test_a_folder_or_a_foreign_file_is_refused(tmp_path):
    from safetensors.numpy import save

    with pytest.raises(RunFolderError):
        read_arrays(tmp_path)
    (tmp_path / "foreign").write_bytes(save({"weight": np.zeros(3)}))
    with pytest.raises(RunFolderError, match="damaged"):
        read_arrays(tmp_path / "foreign")


def test_a_file_in_the_way_of_the_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("here already")
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "arrays", b"content")


def test_a_folder_in_the_way_leaves_nothing_behind(tmp_path):
    (tmp_path / "name").mkdir()
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_atomic(tmp_path / "name", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from common.arrays import write_atomic
from common.errors import RunFolderError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # more fails with EFBIG, as ENOSPC on a full disk
try:
    write_atomic(Path(sys.argv[1]), b"new" * 10_000)
except RunFolderError as error:
    print(error)
"""


def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path, root):
    path = tmp_path / "checkpoint"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be written" in done.stdout
    assert "unharmed" in done.stdout
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]


def test_nothing_is_visible_under_the_name_before_it_is_whole(tmp_path, monkeypatch):
    path: Path = tmp_path / "a"
    write_atomic(path, b"old")
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(path.read_bytes()), fsync(descriptor)))
    write_atomic(path, b"new")
    assert seen == [b"old", b"new"]  # the file before its rename, then the folder after it
