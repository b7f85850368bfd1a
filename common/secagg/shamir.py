"""Secrets that t of n sites can put together and t − 1 cannot. Source: Shamir 1979, over the prime 2⁵²¹ − 1.

A secret carries a tag of itself, so that a wrong share is noticed instead of giving a wrong secret. Python's integers
are not constant in time; shares are handled by their owner and, once opened, by the server only.
"""

import hashlib
import itertools
import math
import secrets
from collections.abc import Iterable, Iterator, Mapping

from common.errors import SecureAggregationError

PRIME = 2**521 - 1
SECRET_BYTES, TAG_BYTES, SHARE_BYTES = 32, 16, 66
MOST_TRIES = 5000


def shares(secret: bytes, threshold: int, count: int, context: bytes) -> list[bytes]:
    """Split 32 bytes into `count` shares, for the points 1 to count, any `threshold` of which give them back."""
    value = int.from_bytes(secret + _tag(secret, context), "big")
    polynomial = [value, *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_at(polynomial, point).to_bytes(SHARE_BYTES, "big") for point in range(1, count + 1)]


def opened(found: Mapping[int, bytes], threshold: int, context: bytes) -> tuple[bytes, list[int]]:
    """Put a secret together from shares by point, and name the points whose shares are wrong.

    Raises:
        SecureAggregationError: `too-few-shares`, or `corrupted-share` when no `threshold` of them agree.
    """
    if len(found) < threshold:
        raise SecureAggregationError(
            "too-few-shares", f"{len(found)} shares came and {threshold} are needed. Begin the round anew."
        )
    values = {point: int.from_bytes(share, "big") for point, share in sorted(found.items())}
    for points in _subsets(list(values), threshold):
        value = _interpolated({point: values[point] for point in points}, 0)
        secret, tag = _parts(value)
        if tag == _tag(secret, context):
            agreed = {point: values[point] for point in points}
            return secret, [point for point in values if _interpolated(agreed, point) != values[point]]
    raise SecureAggregationError(
        "corrupted-share",
        f"no {threshold} of the {len(found)} shares agree: too many are wrong. Begin the round anew without "
        f"those sites.",
    )


def _subsets(points: list[int], size: int) -> Iterator[Iterable[int]]:
    """Give the first points, then all subsets if they are few, else random ones.

    In their order, a wrong share at the first point of fifty would be in millions of subsets before one without it.
    """
    yield points[:size]
    if math.comb(len(points), size) <= MOST_TRIES:
        yield from itertools.combinations(points, size)
    else:
        chance = secrets.SystemRandom()
        yield from (chance.sample(points, size) for _ in range(MOST_TRIES))


def _parts(value: int) -> tuple[bytes, bytes]:
    content = value.to_bytes(SHARE_BYTES, "big")
    whole = content[-(SECRET_BYTES + TAG_BYTES) :]
    return (whole[:SECRET_BYTES], whole[SECRET_BYTES:]) if not any(content[: -len(whole)]) else (b"", b"")


def _tag(secret: bytes, context: bytes) -> bytes:
    return hashlib.sha256(b"consilium-secagg-tag" + context + secret).digest()[:TAG_BYTES]


def _at(polynomial: list[int], point: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * point + coefficient) % PRIME
    return value


def _interpolated(values: Mapping[int, int], at: int) -> int:
    """Value at `at` of the polynomial through the points (Lagrange)."""
    total = 0
    for point, value in values.items():
        above = below = 1
        for other in values:
            if other != point:
                above = above * (at - other) % PRIME
                below = below * (point - other) % PRIME
        total += value * above * pow(below, -1, PRIME)
    return total % PRIME
