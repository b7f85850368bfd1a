"""One file from the network, only when the user said so, checked against its published MD5."""

import hashlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.request import urlopen

from common.data.npz import write_whole
from common.errors import DataError

TIMEOUT_SECONDS = 60
CHUNK = 2**20


def download(url: str, path: Path, md5: str) -> None:
    """Fetch `url` to `path`; a broken or wrong download leaves nothing behind.

    MD5 guards against damage on the way and mix-ups, not against a forger: the address is https for that.

    Raises:
        DataError: No answer, another checksum, or the folder cannot be written.
    """

    def fill(file: IO[bytes]) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in _chunks(url):
            digest.update(chunk)
            file.write(chunk)
        if digest.hexdigest() != md5:
            raise DataError(
                f"{path.name}: the download has MD5 {digest.hexdigest()}. Published is {md5}; try again, or fetch "
                f"{url} yourself."
            )

    write_whole(path, fill)


def _chunks(url: str) -> Iterator[bytes]:
    try:
        with urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            while chunk := response.read(CHUNK):
                yield chunk
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{url} cannot be fetched ({type(error).__name__}). Check the network and proxy, or copy the file by hand."
        ) from None
