"""What travels in a secure sum, in the order of its stages; each has one way to be written and one to be read."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.secagg.identity import SIGNATURE_BYTES
from common.secagg.wire import digest, join, malformed, names, split

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Advert:
    """Stage 1: fresh public X25519 keys, one for shares and one for masks, signed."""

    site: str
    share_key: bytes
    mask_key: bytes
    signature: bytes

    @property
    def payload(self) -> bytes:
        """What is signed."""
        return join([self.share_key, self.mask_key])

    def to_bytes(self) -> bytes:
        """Write."""
        return join([self.site.encode(), self.share_key, self.mask_key, self.signature])

    @classmethod
    def from_bytes(cls, content: bytes) -> "Advert":
        """Read, or refuse as `malformed`."""
        site, share_key, mask_key, signature = split(content, 4)
        if len(share_key) != KEY_BYTES or len(mask_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            raise malformed("a key or signature of an advert has another length")
        return cls(_text(site), share_key, mask_key, signature)


def pack_bytes(items: Mapping[str, bytes]) -> bytes:
    """Write bytes by site: adverts, sealed shares, opened shares, votes."""
    return join([field for site in sorted(items) for field in (site.encode(), items[site])])


def unpack_bytes(content: bytes) -> dict[str, bytes]:
    """Read what `pack_bytes` wrote; a site twice, or out of order, is refused as `malformed`."""
    fields = split(content)
    if len(fields) % 2:
        raise malformed("a site stands without its bytes")
    keys = [_text(field) for field in fields[::2]]
    if keys != sorted(set(keys)):
        raise malformed("sites stand twice or out of order")
    return dict(zip(keys, fields[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class UnmaskRequest:
    """Stage 4: who lives and who dropped after sending shares, and under `signed` the votes of those who live."""

    alive: tuple[str, ...]
    dropped: tuple[str, ...]
    votes: Mapping[str, bytes]

    @property
    def payload(self) -> bytes:
        """What is voted on."""
        return survivors(self.alive, self.dropped)

    def to_bytes(self) -> bytes:
        """Write."""
        return join([join(names(self.alive)), join(names(self.dropped)), pack_bytes(self.votes)])

    @classmethod
    def from_bytes(cls, content: bytes) -> "UnmaskRequest":
        """Read, or refuse as `malformed`."""
        alive, dropped, votes = split(content, 3)
        lists = [tuple(_text(field) for field in split(each)) for each in (alive, dropped)]
        return cls(lists[0], lists[1], unpack_bytes(votes))


def survivors(alive: tuple[str, ...], dropped: tuple[str, ...]) -> bytes:
    """Give the digest of who lives and who dropped."""
    return digest([digest(names(alive)), digest(names(dropped))])


def _text(field: bytes) -> str:
    try:
        return field.decode()
    except UnicodeDecodeError:
        raise malformed("a name is no UTF-8") from None
