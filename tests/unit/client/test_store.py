"""The store: a site's own arrays of its last two rounds, whatever happens in between."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.store import Store
from common.errors import RunFolderError


def of(round_):
    return {"norm.weight": np.full(3, round_, np.float32)}


def held(store, up_to):
    found = store.load(up_to)
    return int(found["norm.weight"][0]) if found else None


def test_before_the_first_round_there_is_nothing(tmp_path):
    store = Store(tmp_path / "new")
    assert store.load(5) == {}
    assert not (tmp_path / "new").exists()


def test_the_newest_not_after(tmp_path):
    store = Store(tmp_path)
    store.save(2, of(2))
    store.save(5, of(5))
    assert [held(store, up_to) for up_to in (1, 2, 4, 5, 9)] == [None, 2, 2, 5, 5]


def test_two_rounds_are_kept(tmp_path):
    store = Store(tmp_path)
    for round_ in (1, 2, 3, 4):
        store.save(round_, of(round_))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "local-000003.safetensors",
        "local-000004.safetensors",
    ]


def test_a_repeated_round_drops_what_came_after_it(tmp_path):
    store = Store(tmp_path)
    for round_ in (1, 2, 3):
        store.save(round_, of(round_))
    store.save(2, of(20))
    assert [held(store, up_to) for up_to in (1, 2, 3)] == [None, 20, 20]


def test_it_is_the_same_in_another_process(tmp_path):
    Store(tmp_path).save(1, of(1))
    assert held(Store(tmp_path), 1) == 1


def test_a_damaged_file_is_an_error_and_never_the_round_before(tmp_path):
    store = Store(tmp_path)
    store.save(1, of(1))
    store.save(2, of(2))
    (tmp_path / "local-000002.safetensors").write_bytes(b"torn")
    with pytest.raises(RunFolderError, match="damaged"):
        store.load(2)
    assert held(store, 1) == 1


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / ".local-000009.safetensors.1.tmp").write_bytes(b"left by a crash")
    (tmp_path / "notes.txt").write_text("mine")
    store = Store(tmp_path)
    for round_ in (1, 2, 3):
        store.save(round_, of(round_))
    assert held(store, 99) == 3
    assert (tmp_path / "notes.txt").exists()


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), max_size=6), st.integers(0, 9))
def test_against_a_slow_twin(tmp_path_factory, saved, up_to):
    """The twin is a dict: saving forgets later rounds and all but the last two."""
    store, twin = Store(tmp_path_factory.mktemp("store")), {}
    for count, round_ in enumerate(saved, 1):
        store.save(round_, of(count))
        twin = {number: value for number, value in twin.items() if number < round_} | {round_: count}
        twin = dict(sorted(twin.items())[-2:])
    expected = [twin[number] for number in sorted(twin) if number <= up_to]
    assert held(store, up_to) == (expected[-1] if expected else None)
