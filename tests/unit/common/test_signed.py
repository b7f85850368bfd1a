"""Signed arrays: they come back from the right key, and from nothing else."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from common.arrays import NOTES, arrays_digest, read_arrays, write_arrays
from common.errors import ConfigError, DataError
from common.secagg.identity import Identity
from common.signed import public_key, read_signed, write_signed

ARRAYS = {"b": np.arange(6.0).reshape(2, 3), "a": np.array(3, np.int64)}
BODY = json.dumps({"what": "a test"})


@pytest.fixture
def signer():
    return Identity.fresh("coordinator")


@pytest.fixture
def file(tmp_path, signer):
    write_signed(tmp_path / "file.safetensors", ARRAYS, BODY, signer)
    return tmp_path / "file.safetensors"


def test_it_comes_back(file, signer):
    arrays, body = read_signed(file, signer.public)
    assert body == BODY
    assert arrays_digest(arrays) == arrays_digest(dict(reversed(ARRAYS.items())))
    assert all(np.array_equal(arrays[name], array) for name, array in ARRAYS.items())


def test_another_key_is_not_trusted_even_if_it_signed_well(file, signer):
    with pytest.raises(DataError, match=r"is signed by the key .* only .* is trusted"):
        read_signed(file, Identity.fresh("coordinator").public)


@pytest.mark.parametrize("changed", ["array", "body", "by"])
def test_a_change_that_keeps_the_checksum_right_breaks_the_signature(file, signer, changed):
    arrays, notes = read_arrays(file)
    if changed == "array":
        arrays = {**arrays, "b": arrays["b"] + 1e-9}
    else:
        notes = {**notes, changed: notes[changed] + " "}
    write_arrays(file, arrays, notes)
    with pytest.raises(DataError, match="changed after it was signed"):
        read_signed(file, signer.public)


def test_any_flipped_byte_is_found(file, signer):
    content = bytearray(file.read_bytes())
    for place in range(0, len(content), 37):
        content[place] ^= 1
        file.write_bytes(content)
        with pytest.raises(DataError):
            read_signed(file, signer.public)
        content[place] ^= 1


def test_what_is_no_signed_file_is_refused(tmp_path, signer):
    with pytest.raises(DataError, match="missing, damaged or not signed"):
        read_signed(tmp_path / "none", signer.public)
    plain = tmp_path / "plain"
    write_arrays(plain, ARRAYS, {})
    with pytest.raises(DataError, match="not signed"):
        read_signed(plain, signer.public)
    save_file({"a": np.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(DataError, match="not signed"):
        read_signed(tmp_path / "foreign", signer.public)


def test_the_private_key_is_not_in_the_file(file, signer, tmp_path):
    signer.write(tmp_path / "key")
    secret = json.loads((tmp_path / "key").read_text())["ed25519"]
    with safe_open(file, framework="np") as opened:
        assert secret not in opened.metadata()[NOTES]


@pytest.mark.parametrize("text", ["", "zz", "ab" * 31, "ab" * 33, "ab" * 31 + "g0"])
def test_only_a_public_key_is_one(text):
    with pytest.raises(ConfigError, match="64 hexadecimal"):
        public_key(text)


def test_a_printed_key_is_read(signer):
    assert public_key(f" {signer.public.hex()}\n") == signer.public
