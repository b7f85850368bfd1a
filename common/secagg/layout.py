"""Several arrays in one vector of whole numbers: what stands where, how far each may reach, and how fine it is cut."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from common.errors import SecureAggregationError
from common.randomness import SecureRandom
from common.secagg.masks import DTYPES, Ring
from common.secagg.wire import digest

CHUNK = 1 << 15
"""Entries that are laid out at once: they and their random words stay in the processor's cache."""
NEAREST = 1.5 * 2.0**52


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
        """Write all segments into one vector.

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
        vector: Any = np.empty(self.length, dtype=DTYPES[self.ring_bits])
        start = 0
        for segment in self.segments:
            values = np.asarray(arrays[segment.name]).reshape(-1)
            if len(values) != segment.length:
                raise _wrong("length", f"{segment.name!r} has {len(values)} entries", str(segment.length))
            for at in range(0, segment.length, CHUNK):
                part = values[at : at + CHUNK]
                whole = self._encoded(segment, part, random)
                if segment.name in noise:
                    whole = whole + noise[segment.name][at : at + CHUNK]
                vector[start + at : start + at + len(part)] = whole
            start += segment.length
        return cast(Ring, vector)

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

    def _encoded(self, segment: Segment, part: NDArray[np.generic], random: SecureRandom) -> NDArray[Any]:
        if segment.whole and not np.issubdtype(part.dtype, np.integer):
            raise _wrong("length", f"{segment.name!r} holds {part.dtype}", "whole numbers")
        # A hair of slack: norms are bounded in single precision. NaN is not less than anything.
        limit = segment.bound * (1 + 1e-6)
        if not (part.max() <= limit and part.min() >= -limit):
            raise _refused(segment, part, limit)
        if segment.whole:
            return part.astype(np.int64)
        scaled = part.astype(np.float64)
        scaled *= self.scale(segment)
        return random.rounded(scaled) if self.ring_bits == 64 else _rounded_32(scaled, random)


def _rounded_32(scaled: NDArray[np.float64], random: SecureRandom) -> NDArray[np.int64]:
    """Round at random, ⌊v + u⌋ = round(v + u − ½), in few passes; only the low 32 bits of the result are meant.

    A double that 1.5·2⁵² was added to holds the nearest whole number, two's complement, in its low bits.
    """
    scaled += np.frombuffer(random.stream.piece(4 * len(scaled)), np.int32) * 2.0**-32
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
