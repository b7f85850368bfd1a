"""Keys that two sites share, and the sealing of what one sends the other through the server."""

import os
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from common.errors import SecureAggregationError
from common.secagg.wire import join

NONCE_BYTES = 12


def fresh_secret() -> bytes:
    """Draw an X25519 private key."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_of(secret: bytes) -> bytes:
    """Give the public key of a private one."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def pair_key(secret: bytes, public: bytes, use: str, context: bytes) -> bytes:
    """Give the key of 32 bytes that both sides derive, for one use in one sum (HKDF-SHA256 over X25519).

    Raises:
        SecureAggregationError: `low-order-key`: a public key whose shared secret everybody knows.
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise SecureAggregationError(
            "low-order-key", "a site's public key is one whose shared secret is known. Find out who sent it."
        ) from None
    return derived(shared, use, context)


def derived(secret: bytes, use: str, context: bytes) -> bytes:
    """Derive a key of 32 bytes for one use."""
    return HKDF(SHA256(), 32, salt=context, info=b"consilium-secagg " + use.encode()).derive(secret)


class Tag:
    """A tag on what is handed in piece by piece, by a key used once, so the nonce is zero: GMAC, NIST SP 800-38D.

    It costs a tenth of hashing and signing, and only the receiver, who has the key too, needs to believe it.
    """

    def __init__(self, key: bytes) -> None:
        self._mac = Cipher(algorithms.AES(key), modes.GCM(bytes(NONCE_BYTES))).encryptor()

    def see(self, part: NDArray[Any]) -> None:
        """Take in the bytes of a contiguous array."""
        self._mac.authenticate_additional_data(part.view(np.uint8).data)

    def give(self) -> bytes:
        """Give the tag, 16 bytes; nothing can be taken in afterwards."""
        self._mac.finalize()
        return self._mac.tag


def seal(key: bytes, content: bytes, *about: bytes) -> bytes:
    """Encrypt with AES-256-GCM, bound to what it is about: 12 bytes of nonce, then the ciphertext with its tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, join(about))


def unseal(key: bytes, content: bytes, *about: bytes) -> bytes:
    """Decrypt.

    Raises:
        SecureAggregationError: `sealed-wrong`: changed on the way, for another receiver, or of another sum.
    """
    try:
        return AESGCM(key).decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], join(about))
    except (InvalidTag, ValueError):
        raise SecureAggregationError(
            "sealed-wrong",
            "a sealed share does not open: it was changed, or meant for another site. Begin the round anew.",
        ) from None
