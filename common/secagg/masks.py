"""Masks: the keystream of a key, added to or taken from a vector of whole numbers that wrap around."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.keystream import CHUNK, Keystream, new_scratch

Ring = NDArray[np.uint32] | NDArray[np.uint64]
Mask = tuple[bytes, Literal[1, -1]]
"""A derived key, and whether its mask is added or taken off."""
DTYPES = {32: np.dtype("<u4"), 64: np.dtype("<u8")}


def add_mask(vector: Ring, key: bytes, sign: Literal[1, -1]) -> None:
    """Add (or subtract) a key's mask to a vector, in place."""
    add_masks(vector, [(key, sign)])


def add_masks(vector: Ring, masks: Sequence[Mask]) -> None:
    """Add (or subtract) several masks, in place: all of them piece by piece, so that a piece stays in the cache."""
    scratch = new_scratch()
    words = np.frombuffer(scratch, vector.dtype, CHUNK // vector.itemsize)
    streams = [(Keystream(key, scratch), np.add if sign == 1 else np.subtract) for key, sign in masks]
    for start in range(0, len(vector), len(words)):
        part = vector[start : start + len(words)]
        size, drawn = part.nbytes, words[: len(part)]
        for stream, combine in streams:
            stream.piece(size)
            combine(part, drawn, out=part)
