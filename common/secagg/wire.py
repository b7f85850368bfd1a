"""Fields as bytes and back: each with its length before it, nothing left over. Also what is hashed and signed."""

import hashlib
from collections.abc import Iterable, Sequence

from common.errors import SecureAggregationError

LONGEST = 1 << 32
"""Bytes of one field."""


def join(fields: Iterable[bytes]) -> bytes:
    """Put fields one after the other, each with its length in four bytes; no two lists give the same bytes."""
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def split(content: bytes, count: int | None = None) -> list[bytes]:
    """Take apart what `join` made.

    Raises:
        SecureAggregationError: `malformed`: a field is cut short, bytes are left over, or there are not `count` fields.
    """
    fields, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        if at + 4 + size > len(content):
            raise malformed("a field is cut short")
        fields.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    if count is not None and len(fields) != count:
        raise malformed(f"{len(fields)} fields stand where {count} belong")
    return fields


def digest(fields: Sequence[bytes]) -> bytes:
    """SHA-256 of fields with their lengths."""
    return hashlib.sha256(join(fields)).digest()


def names(sites: Iterable[str]) -> list[bytes]:
    """Give sites' names in their one order, as fields."""
    return [site.encode() for site in sorted(sites)]


def malformed(what: str) -> SecureAggregationError:
    """Say that a message of the protocol cannot be read."""
    return SecureAggregationError(
        "malformed", f"a message of secure aggregation cannot be read: {what}. Run one version of Consilium everywhere."
    )
