"""A stream of bytes that nobody without the key can tell from chance: AES-256 in counter mode."""

import os
from collections.abc import Iterator

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

KEY_BYTES = 32
CHUNK = 1 << 18
"""Bytes encrypted at once: 64 KiB to 1 MiB are equally fast, 8 MiB lose a fifth."""
_ZEROS = bytes(CHUNK)


class Keystream:
    """The stream of one key, read from its start; a key is used for one purpose only, so the nonce is zero."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {len(key)} bytes; allowed are {KEY_BYTES}")
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
        self._scratch = bytearray(CHUNK + 15)  # the library asks for one block more than it writes

    def chunks(self, count: int) -> Iterator[memoryview]:
        """Give the next `count` bytes in pieces; each is overwritten by the next one."""
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            self._cipher.update_into(memoryview(_ZEROS)[:size], self._scratch)
            yield memoryview(self._scratch)[:size]

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


def fresh_key() -> bytes:
    """Draw a key from the operating system."""
    return os.urandom(KEY_BYTES)
