"""The journal: what was appended stays, in order; damage is found; a torn tail is cut."""

import errno
import hashlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import RunFolderError
from common.journal import START, Journal

BODIES = [{"round": number, "text": "Höhe \u2028 \n", "values": [0.1, 1e-300, -0.0]} for number in range(4)]


def written(path, bodies=BODIES):
    journal = Journal(path)
    for body in bodies:
        journal.append(body)
    return path


def test_records_come_back_in_order(tmp_path):
    assert list(Journal(written(tmp_path / "j"))) == BODIES
    assert list(Journal(tmp_path / "none")) == []


def test_reopened_it_goes_on(tmp_path):
    straight = written(tmp_path / "straight")
    for body in BODIES:
        Journal(tmp_path / "again").append(body)
    assert (tmp_path / "again").read_bytes() == straight.read_bytes()


def test_each_line_names_the_hash_of_all_before(tmp_path):
    """Head₀ is 64 zeros; headᵢ = SHA-256(headᵢ₋₁ + newline + body as written)."""
    head = START
    for line in written(tmp_path / "j").read_text().splitlines():
        text = line.removeprefix('{"body": ')[: -len(', "hash": ""}') - 64]
        head = hashlib.sha256(f"{head}\n{text}".encode()).hexdigest()
        assert json.loads(line) == {"body": json.loads(text), "hash": head}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=4))
def test_any_json_survives(tmp_path_factory, bodies):
    path = tmp_path_factory.mktemp("journal") / "j"
    assert list(Journal(written(path, bodies))) == bodies


def test_integer_keys_do_not_break_the_chain(tmp_path):
    """JSON turns them into texts, which sort otherwise: the hash must not depend on that."""
    Journal(tmp_path / "j").append({9: "a", 10: "b"})
    assert list(Journal(tmp_path / "j")) == [{"9": "a", "10": "b"}]


def test_nan_is_refused_and_nothing_is_written(tmp_path):
    journal = Journal(written(tmp_path / "j"))
    with pytest.raises(ValueError, match="JSON"):
        journal.append({"loss": float("nan")})
    assert list(Journal(tmp_path / "j")) == BODIES


def test_any_tear_of_the_last_line_is_cut_and_the_rest_goes_on(tmp_path):
    path = written(tmp_path / "j")
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        journal = Journal(path)
        assert list(journal) == BODIES[:3]
        journal.append(BODIES[3])
        assert path.read_bytes() == whole


def test_any_other_change_is_found(tmp_path):
    path = written(tmp_path / "j", BODIES[:2])
    whole = path.read_bytes()
    for place in range(len(whole) - 1):  # a changed last byte is a torn line
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(RunFolderError, match="chain"):
            Journal(path)


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 2, 3], [1, 2, 3], [0, 0, 1, 2]])
def test_lines_moved_removed_or_repeated_are_found(tmp_path, order):
    path = written(tmp_path / "j")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[index] for index in order))
    with pytest.raises(RunFolderError, match="line"):
        Journal(path)


@pytest.mark.parametrize("content", [b"\n", b"\xff\xfe\n", b"[]\n", b"null\n", b'{"body": 1}\n', b"\x00" * 50 + b"\n"])
def test_what_is_no_journal_is_refused(tmp_path, content):
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(RunFolderError, match="line 1"):
        Journal(tmp_path / "j")


def test_a_folder_in_its_place_is_a_clear_error(tmp_path):
    with pytest.raises(RunFolderError, match="cannot be read"):
        Journal(tmp_path)


def test_a_failed_write_leaves_the_file_as_it_was_and_the_next_one_succeeds(tmp_path, monkeypatch):
    """Half a line reaches the disk before it is full; later there is room again."""
    path = written(tmp_path / "j", BODIES[:2])
    before = path.read_bytes()
    journal = Journal(path)
    write = os.write

    def half(descriptor, content):
        if len(content) < 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[: len(content) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(RunFolderError, match="No space left"):
            journal.append(BODIES[2])
    assert path.read_bytes() == before
    journal.append(BODIES[2])
    assert list(Journal(path)) == BODIES[:3]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from common.errors import RunFolderError
from common.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # more fails with EFBIG, as ENOSPC on a full disk
journal = Journal(Path(sys.argv[1]))
try:
    for number in range(1000):
        journal.append({"number": number})
except RunFolderError as error:
    print(number, error)
"""


def test_a_full_disk_loses_no_record_that_was_promised(tmp_path, root):
    path = tmp_path / "j"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    promised = int(done.stdout.split()[0])
    assert "cannot be written" in done.stdout
    assert promised > 20
    assert list(Journal(path)) == [{"number": number} for number in range(promised)]
