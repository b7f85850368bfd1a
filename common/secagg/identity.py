"""Who a site is: an Ed25519 key that signs everything, and the roster of all sites' public keys.

The roster reaches every site by another way than the server, else the server could stand between all of them.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import ConfigError, SecureAggregationError
from common.secagg.wire import join

SIGNATURE_BYTES = 64


class Identity:
    """A site's private key. It never leaves the site."""

    def __init__(self, site: str, secret: bytes) -> None:
        self.site = site
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self._secret = secret

    @classmethod
    def fresh(cls, site: str) -> "Identity":
        """Draw a key."""
        return cls(site, Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes, for the roster."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, context: bytes, stage: str, payload: bytes) -> bytes:
        """Sign a payload of one stage of one sum."""
        return self._key.sign(join([context, stage.encode(), self.site.encode(), payload]))

    def sealing_key(self) -> bytes:
        """Give the key under which this site keeps a session's secrets between two messages."""
        return HKDF(SHA256(), 32, salt=None, info=b"consilium-secagg-seal").derive(self._secret)

    def write(self, path: Path) -> None:
        """Keep the key in a file that only its owner can read; an existing one is never overwritten.

        Raises:
            ConfigError: The file exists, or cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(json.dumps({"site": self.site, "ed25519": self._secret.hex()}))
        except OSError as error:
            raise ConfigError(f"the identity {path} cannot be written: {error.strerror}. Give another path.") from None

    @classmethod
    def read(cls, path: Path) -> "Identity":
        """Read what `write` wrote.

        Raises:
            ConfigError: It is missing or no identity.
        """
        try:
            body = json.loads(path.read_text())
            return cls(str(body["site"]), bytes.fromhex(body["ed25519"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"the identity {path} cannot be read. Make one with `consilium-site identity`.") from None


@dataclass(frozen=True, slots=True)
class Roster:
    """Public keys by site.

    Raises:
        SecureAggregationError: `sybil`: one key stands under two names.
    """

    keys: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if len(set(self.keys.values())) != len(self.keys):
            raise SecureAggregationError(
                "sybil", "two sites of the roster have one key. Every site has a key of its own; ask who they are."
            )

    def verify(self, site: str, context: bytes, stage: str, payload: bytes, signature: bytes) -> None:
        """Check a signature.

        Raises:
            SecureAggregationError: `unknown-site` or `wrong-signature`.
        """
        if site not in self.keys:
            raise SecureAggregationError(
                "unknown-site", f"site {site!r} is not in the roster. Only sites of the roster take part; add its key."
            )
        try:
            Ed25519PublicKey.from_public_bytes(self.keys[site]).verify(
                signature, join([context, stage.encode(), site.encode(), payload])
            )
        except (InvalidSignature, ValueError):
            raise SecureAggregationError(
                "wrong-signature",
                f"what came in the name of {site!r} at stage {stage!r} was not signed by it, or for another sum. Begin "
                f"the round anew; if it happens again, somebody stands between that site and the server.",
            ) from None

    def write(self, path: Path) -> None:
        """Write the roster as JSON."""
        path.write_text(json.dumps({site: key.hex() for site, key in sorted(self.keys.items())}, indent=2))

    @classmethod
    def read(cls, path: Path) -> "Roster":
        """Read a roster.

        Raises:
            ConfigError: It is missing or no roster.
        """
        try:
            body = json.loads(path.read_text())
            keys = {str(site): bytes.fromhex(key) for site, key in body.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            raise ConfigError(f"the roster {path} cannot be read. It is a JSON object of site to public key.") from None
        if not all(len(key) == 32 for key in keys.values()):
            raise ConfigError(f"the roster {path} holds a key that has not 32 bytes. Ask that site for its key again.")
        return cls(keys)


def simulated(run: str, site: str) -> Identity:
    """Give the identity of a simulated site. Whoever knows the run's settings can compute it, so it protects nobody.

    All simulated sites live on one machine. A hospital has a key of its own, from `Identity.fresh`.
    """
    return Identity(
        site, HKDF(SHA256(), 32, salt=run.encode(), info=b"simulated " + site.encode()).derive(b"simulated")
    )
