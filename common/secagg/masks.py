"""Masks: the keystream of a key, added to or taken from a vector of whole numbers that wrap around."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.keystream import Keystream

Ring = NDArray[np.uint32] | NDArray[np.uint64]
DTYPES = {32: np.dtype("<u4"), 64: np.dtype("<u8")}


def add_mask(vector: Ring, key: bytes, sign: Literal[1, -1]) -> None:
    """Add (or subtract) a key's mask to a vector, in place, a quarter of a megabyte at a time."""
    combine = np.add if sign == 1 else np.subtract
    start = 0
    for piece in Keystream(key).chunks(vector.nbytes):
        words = np.frombuffer(piece, vector.dtype)
        part = vector[start : start + len(words)]
        combine(part, words, out=part)
        start += len(words)
