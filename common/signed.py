"""Files of arrays that say who made them: safetensors with an Ed25519 signature over everything in them."""

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.arrays import Arrays, arrays_digest, read_arrays, write_arrays
from common.errors import ConfigError, DataError, RunFolderError
from common.secagg.identity import Identity
from common.secagg.wire import join

CONTEXT = b"consilium-signed-arrays"


def write_signed(path: Path, arrays: Arrays, body: str, identity: Identity) -> None:
    """Write arrays and a text, signed. The text says what the arrays are; it is signed with them.

    Raises:
        RunFolderError: The file cannot be written.
    """
    signature = identity.sign(CONTEXT, body, bytes.fromhex(arrays_digest(arrays)))
    notes = {"body": body, "by": identity.site, "key": identity.public.hex(), "signature": signature.hex()}
    write_arrays(path, arrays, notes)


def read_signed(path: Path, trusted: bytes) -> tuple[Arrays, str]:
    """Read what `write_signed` wrote, if the holder of the trusted public key signed it.

    Raises:
        DataError: The file is missing or damaged, was signed by another key, or was changed after it was signed.
    """
    try:
        arrays, notes = read_arrays(path)
        key, signature = bytes.fromhex(notes["key"]), bytes.fromhex(notes["signature"])
        body, by = notes["body"], notes["by"]
    except (RunFolderError, KeyError, ValueError, TypeError):
        raise DataError(
            f"{path.name} is missing, damaged or not signed. Only a whole file of `consilium export` is read; copy it "
            f"again from whoever ships the model."
        ) from None
    if key != trusted:
        raise DataError(
            f"{path.name} is signed by the key {key.hex()[:16]}… and only {trusted.hex()[:16]}… is trusted. Ask "
            f"whoever ships the model, by another way than this file came, for the public key; never take it from the "
            f"file itself."
        )
    message = join([CONTEXT, body.encode(), by.encode(), bytes.fromhex(arrays_digest(arrays))])
    try:
        Ed25519PublicKey.from_public_bytes(trusted).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise DataError(
            f"{path.name} was changed after it was signed. Nothing of it is used; copy it again from whoever ships "
            f"the model, and tell them if it happens twice."
        ) from None
    return arrays, body


def public_key(text: str) -> bytes:
    """Read a public key as `consilium-site identity` prints it: 64 hexadecimal digits.

    Raises:
        ConfigError: It is something else.
    """
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError(
            f"a public key has {len(text.strip())} characters. Allowed are 64 hexadecimal digits, as "
            f"`consilium-site identity` prints them; ask the key's owner again."
        )
    return key
