"""Several arrays in one vector of whole numbers: what stands where, how far each may reach, and how fine it is cut."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from common.errors import SecureAggregationError
from common.keystream import aligned
from common.randomness import SecureRandom
from common.secagg.masks import DTYPES, Ring
from common.secagg.wire import digest

CHUNK = 1 << 16
"""Entries that are rounded at once: they and their random words stay in the processor's cache."""
PIECE = 1 << 18
"""Entries that are given at once: rounding and masks need different instructions, and changing over takes time."""
NEAREST = 1.5 * 2.0 ** (52 + 16)


@dataclass(frozen=True, slots=True)
class Segment:
    """One array of the vector.

    Args:
        name: What it is.
        length: Its entries.
        bound: The largest absolute value of one site's entry. What is larger is refused, never cut in silence.
        whole: Whether entries are whole numbers that are summed exactly; others are rounded at random, without bias.
        finest: The most whole numbers that one unit is cut into; noise on a finer grid could not be drawn.
    """

    name: str
    length: int
    bound: float
    whole: bool = False
    finest: float = math.inf


@dataclass(frozen=True, slots=True)
class Layout:
    """Segments one after the other, in a ring of 32 or 64 bits, for at most `sites` sites.

    An entry is q = ⌊v·s + u⌋ with s the largest scale at which the sum of all sites cannot wrap around, and u uniform.
    The sum of n sites is off by at most n/s, in the root mean square √(n/6)/s.

    Raises:
        SecureAggregationError: `overflow`: whole numbers of this bound would wrap around.
    """

    segments: tuple[Segment, ...]
    ring_bits: int
    sites: int

    def __post_init__(self) -> None:
        for segment in self.segments:
            room = self.room / segment.bound if 0 < segment.bound < math.inf else 0.0
            if room < 1 and (segment.whole or room == 0.0):
                raise SecureAggregationError(
                    "overflow",
                    f"{self.sites} sites' {segment.name!r} of up to {segment.bound:g} do not fit {self.ring_bits} "
                    f"bits. Set `secure-aggregation.ring-bits` to 64, or let fewer sites take part.",
                )

    @property
    def room(self) -> float:
        """The largest whole number of one site: the sum of all stays below half the ring, with one bit to spare."""
        return float(2 ** (self.ring_bits - 2 - max(1, math.ceil(math.log2(self.sites)))))

    @property
    def length(self) -> int:
        """Entries of the vector."""
        return sum(segment.length for segment in self.segments)

    @property
    def digest(self) -> str:
        """SHA-256 of what stands where."""
        rows = [f"{each.name}|{each.length}|{each.bound!r}|{each.whole}|{each.finest!r}" for each in self.segments]
        return digest([row.encode() for row in (*rows, str(self.ring_bits), str(self.sites))]).hex()

    def scale(self, segment: Segment) -> float:
        """How many whole numbers one unit of a segment is cut into."""
        return 1.0 if segment.whole else min(segment.finest, self.room / segment.bound)

    def encode(
        self,
        arrays: Mapping[str, NDArray[np.generic]],
        random: SecureRandom,
        noise: Mapping[str, NDArray[np.int64]] = MappingProxyType({}),
    ) -> Ring:
        """Write all segments into one vector, as `pieces` gives them."""
        return cast(Ring, np.concatenate([piece.copy() for piece in self.pieces(arrays, random, noise)]))

    def pieces(
        self,
        arrays: Mapping[str, NDArray[np.generic]],
        random: SecureRandom,
        noise: Mapping[str, NDArray[np.int64]] = MappingProxyType({}),
    ) -> Iterator[Ring]:
        """Give the vector of all segments in pieces, each of which is overwritten by the next one.

        Args:
            arrays: Each segment's entries, flat, by name. Whole segments take integers.
            random: Rounds.
            noise: Whole numbers added to some segments after rounding.

        Raises:
            SecureAggregationError: `length`: a segment is missing, surplus or of another length; `not-finite`; `bound`:
                entries reach too far, and how many.
        """
        if set(arrays) != {each.name for each in self.segments}:
            raise _wrong("length", f"the segments are {', '.join(sorted(arrays))}", "those of the layout")
        room, scaled = aligned(PIECE, DTYPES[self.ring_bits]), aligned(CHUNK, np.dtype(np.float64))
        for segment in self.segments:
            values = np.asarray(arrays[segment.name]).reshape(-1)
            if len(values) != segment.length:
                raise _wrong("length", f"{segment.name!r} has {len(values)} entries", str(segment.length))
            for at in range(0, segment.length, PIECE):
                piece = room[: min(PIECE, segment.length - at)]
                for within in range(0, len(piece), CHUNK):
                    part = slice(at + within, min(at + within + CHUNK, segment.length))
                    whole = self._encoded(segment, values[part], random, scaled)
                    if segment.name in noise:
                        whole = whole + noise[segment.name][part]
                    piece[within : within + CHUNK] = whole
                yield piece

    def decode(self, total: Ring) -> dict[str, NDArray[np.float64]]:
        """Read the segments of a sum; whole ones are exact up to 2⁵³.

        Raises:
            SecureAggregationError: `length`: the vector is of another length or ring.
        """
        if total.shape != (self.length,) or total.dtype != DTYPES[self.ring_bits]:
            raise _wrong("length", f"the sum has {total.shape} entries of {total.dtype}", f"{self.length} of this ring")
        signed = total.view(total.dtype.str.replace("u", "i"))
        found, start = {}, 0
        for segment in self.segments:
            found[segment.name] = signed[start : start + segment.length] / self.scale(segment)
            start += segment.length
        return found

    def _encoded(
        self, segment: Segment, part: NDArray[np.generic], random: SecureRandom, room: NDArray[np.float64]
    ) -> NDArray[Any]:
        if segment.whole and not np.issubdtype(part.dtype, np.integer):
            raise _wrong("length", f"{segment.name!r} holds {part.dtype}", "whole numbers")
        # A hair of slack: norms are bounded in single precision. NaN is not less than anything.
        limit = segment.bound * (1 + 1e-6)
        if not (part.max() <= limit and part.min() >= -limit):
            raise _refused(segment, part, limit)
        if segment.whole:
            return part.astype(np.int64)
        scaled = room[: len(part)]
        scaled[:] = part
        if self.ring_bits == 64:
            scaled *= self.scale(segment)
            return random.rounded(scaled)
        scaled *= self.scale(segment) * 2.0**16
        return _rounded_32(scaled, random)


def _rounded_32(scaled: NDArray[np.float64], random: SecureRandom) -> NDArray[np.int64]:
    """Round v, given in units of 2⁻¹⁶, at random: ⌊v + u⌋ = round(v + u − ½). Only the result's low 32 bits are meant.

    A double that 1.5·2⁵² times a unit was added to holds the nearest whole number of units, two's complement, in its
    low bits; a unit here is 2¹⁶ of what is given. Of u's 2¹⁶ values the mean is 2⁻¹⁷ off a half: that is all the bias.
    """
    scaled += np.frombuffer(random.stream.piece(2 * len(scaled)), np.int16)
    scaled += NEAREST
    return scaled.view(np.int64)


def _refused(segment: Segment, part: NDArray[Any], limit: float) -> SecureAggregationError:
    bad = int((~np.isfinite(part)).sum())
    if bad:
        return _wrong("not-finite", f"{bad} entries of {segment.name!r} are not finite", "finite ones")
    far = int((np.abs(part) > limit).sum())
    return _wrong("bound", f"{far} entries of {segment.name!r} reach beyond {segment.bound:g}", "none")


def _wrong(name: str, found: str, allowed: str) -> SecureAggregationError:
    return SecureAggregationError(name, f"a vector cannot be summed: {found}. Allowed: {allowed}. Look at that site.")
