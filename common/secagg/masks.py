"""Masks: the keystream of a key, added to or taken from a vector of whole numbers that wrap around."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from common.keystream import CHUNK, Keystream, new_scratch

Ring = NDArray[np.uint32] | NDArray[np.uint64]
Mask = tuple[bytes, Literal[1, -1]]
"""A derived key, and whether its mask is added or taken off."""
DTYPES: dict[int, np.dtype[Any]] = {32: np.dtype("<u4"), 64: np.dtype("<u8")}
MASK_KEY_BYTES = 16
"""AES-128: as strong as the curve that keys are agreed on, and a quarter faster than AES-256."""


class Masks:
    """Several masks, from their starts on: what is handed in piece by piece gets what follows of all of them."""

    def __init__(self, masks: Sequence[Mask], dtype: DTypeLike) -> None:
        scratch = new_scratch()
        self._words = np.frombuffer(scratch, dtype, CHUNK // np.dtype(dtype).itemsize)
        self._streams = [
            (Keystream(key[:MASK_KEY_BYTES], scratch), np.add if sign == 1 else np.subtract) for key, sign in masks
        ]

    def add(self, vector: Ring) -> None:
        """Add what follows of every mask to a vector, in place: all of them to a piece that stays in the cache."""
        for start in range(0, len(vector), len(self._words)):
            part = vector[start : start + len(self._words)]
            size, drawn = part.nbytes, self._words[: len(part)]
            for stream, combine in self._streams:
                stream.piece(size)
                combine(part, drawn, out=part)


def add_mask(vector: Ring, key: bytes, sign: Literal[1, -1]) -> None:
    """Add (or subtract) a key's mask to a vector, in place."""
    add_masks(vector, [(key, sign)])


def add_masks(vector: Ring, masks: Sequence[Mask]) -> None:
    """Add (or subtract) several masks, in place."""
    Masks(masks, vector.dtype).add(vector)
