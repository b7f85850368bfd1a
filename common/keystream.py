"""A stream of bytes that nobody without the key can tell from chance: AES in counter mode.

It is taken from the encryption of zeros in GCM, which is counter mode from block 2 on with a tag that nobody asks
for: where a processor has vector instructions for AES, OpenSSL uses them there and not in its plain counter mode, for
twice the speed.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

KEY_BYTES = 32
KEY_SIZES = (16, 32)
"""Of AES-128 and AES-256."""
LONGEST = 2**35
"""Bytes of one stream; the 32 bits of the counter would do for twice as many."""
CHUNK = 1 << 18
"""Bytes encrypted at once: 64 KiB to 1 MiB are equally fast, 8 MiB lose a fifth."""
LINE = 64
_ZEROS = bytes(CHUNK)


class Keystream:
    """The stream of one key, read from its start; a key is used for one purpose only, so the nonce is zero."""

    def __init__(self, key: bytes, scratch: memoryview | None = None) -> None:
        if len(key) not in KEY_SIZES:
            raise ValueError(f"a key has {len(key)} bytes; allowed are {' and '.join(map(str, KEY_SIZES))}")
        self._cipher = Cipher(algorithms.AES(key), modes.GCM(bytes(12))).encryptor()
        self.left = LONGEST
        self._scratch = new_scratch() if scratch is None else scratch

    def chunks(self, count: int) -> Iterator[memoryview]:
        """Give the next `count` bytes in pieces; each is overwritten by the next one."""
        for start in range(0, count, CHUNK):
            yield self.piece(min(CHUNK, count - start))

    def piece(self, size: int) -> memoryview:
        """Give the next `size` bytes, at most CHUNK; they last until the scratch is written again."""
        if size > self.left:
            raise ValueError(f"a key makes {LONGEST} bytes and no more: its counter would come round. Take a new key.")
        self.left -= size
        self._cipher.update_into(memoryview(_ZEROS)[:size], self._scratch)
        return self._scratch[:size]

    def fill(self, out: NDArray[np.uint8]) -> None:
        """Write the next `len(out)` bytes into `out`, one contiguous axis of bytes."""
        view, start = memoryview(out.data), 0
        for piece in self.chunks(len(view)):
            view[start : start + len(piece)] = piece
            start += len(piece)

    def words32(self, count: int) -> NDArray[np.uint32]:
        """Give the next `count` little-endian words of 32 bits."""
        out = np.empty(count * 4, np.uint8)
        self.fill(out)
        return out.view("<u4")

    def words64(self, count: int) -> NDArray[np.uint64]:
        """Give the next `count` little-endian words of 64 bits."""
        out = np.empty(count * 8, np.uint8)
        self.fill(out)
        return out.view("<u8")


def new_scratch() -> memoryview:
    """Give room for one piece; streams that take turns may share it and stay in the processor's cache."""
    return aligned(CHUNK + 15, np.dtype(np.uint8)).data  # the library asks for one block more than it writes


def aligned(length: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Give an array of zeros that begins with a line of the cache: adding such arrays costs a quarter less."""
    room = np.zeros(length * dtype.itemsize + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + length * dtype.itemsize].view(dtype)


def fresh_key() -> bytes:
    """Draw a key from the operating system."""
    return os.urandom(KEY_BYTES)
