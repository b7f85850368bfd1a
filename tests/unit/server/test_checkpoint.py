"""Checkpoints: all a run needs, to the bit; another run's or a damaged one is refused."""

import numpy as np
import pytest

from common.arrays import read_arrays, write_arrays
from common.attention.prior import Prior
from common.attention.signature import Signature
from common.errors import RunFolderError
from server.checkpoint import NAME, Checkpoint, load_checkpoint, save_checkpoint
from tests.federations import same_checkpoint

SCHEMA = "abc123"


def signature(patients=3, size=5):
    rng = np.random.default_rng(patients)
    return Signature(SCHEMA, patients, rng.normal(size=size), rng.random(size))


def checkpoint(**changes):
    values = {
        "round": 4,
        "arrays": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(9), "w/deep": np.zeros(0)},
        "state": {"m/w": np.full((2, 3), -0.0), "v/w": np.full((2, 3), 1e-300)},
        "prior": Prior(SCHEMA, 6, np.linspace(0, 1, 5), np.ones(5)),
        "signatures": {"north": signature(), "Zürich/2 / a": signature(7), "": signature(1)},
    }
    return Checkpoint(**values | changes)


@pytest.mark.parametrize(
    "changes", [{}, {"state": {}}, {"prior": None}, {"signatures": {}}, {"round": 0, "prior": None, "signatures": {}}]
)
def test_it_comes_back_to_the_bit(tmp_path, changes):
    saved = checkpoint(**changes)
    save_checkpoint(tmp_path / "new" / "folder", saved, "digest")
    found = load_checkpoint(tmp_path / "new" / "folder", "digest")
    found.arrays = {name: found.arrays[name] for name in saved.arrays}  # a file sorts its names
    found.state = {name: found.state[name] for name in saved.state}
    assert same_checkpoint(found, saved)


def test_before_the_first_round_there_is_none(tmp_path):
    assert load_checkpoint(tmp_path, "digest") is None
    assert load_checkpoint(tmp_path / "no folder", "digest") is None


def test_the_newest_one_is_found(tmp_path):
    for round_ in (1, 2):
        save_checkpoint(tmp_path, checkpoint(round=round_), "digest")
    assert load_checkpoint(tmp_path, "digest").round == 2
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_another_runs_is_refused_unless_nobody_asks(tmp_path):
    save_checkpoint(tmp_path, checkpoint(), "digest")
    with pytest.raises(RunFolderError, match="other settings"):
        load_checkpoint(tmp_path, "other")
    assert load_checkpoint(tmp_path).round == 4


def test_a_damaged_one_is_refused(tmp_path):
    save_checkpoint(tmp_path, checkpoint(), "digest")
    whole = (tmp_path / NAME).read_bytes()
    for place in range(0, len(whole), 11):
        (tmp_path / NAME).write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        with pytest.raises(RunFolderError):
            load_checkpoint(tmp_path, "digest")
    (tmp_path / NAME).write_bytes(b"")
    with pytest.raises(RunFolderError, match="damaged"):
        load_checkpoint(tmp_path, "digest")


@pytest.mark.parametrize(
    ("gone", "notes"),
    [
        ("", {"round": None}),
        ("", {"round": "soon"}),
        ("prior/mean", {}),
        ("signature/total/north", {}),
        ("", {"signature/patients/north": None}),
        ("", {"prior/patients": "-1"}),
    ],
)
def test_one_of_another_version_is_refused(tmp_path, gone, notes):
    save_checkpoint(tmp_path, checkpoint(), "digest")
    arrays, found = read_arrays(tmp_path / NAME)
    arrays.pop(gone, None)
    texts = {key: value for key, value in {**found, **notes}.items() if value is not None}
    write_arrays(tmp_path / NAME, arrays, texts)
    with pytest.raises(RunFolderError, match="no checkpoint of this version"):
        load_checkpoint(tmp_path, "digest")
