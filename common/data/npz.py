"""`.npz` files from anywhere: read without pickle and without trust, written whole or not at all."""

import math
import os
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError

Arrays = dict[str, NDArray[Any]]


def read_npz(path: Path, wanted: set[str] | None = None) -> Arrays:
    """Take each array out once.

    Args:
        path: The file.
        wanted: Names to read; none reads all. A wanted array may be absent.

    Raises:
        DataError: No such file, not an npz, damaged or cut short, or an array of Python objects.
    """
    if not path.is_file():
        raise DataError(f"data.path: there is no file {path}. Give an `.npz` file that exists.")
    with _open(path) as archive:
        names = {_array_name(entry): entry for entry in archive.namelist()}
        return {name: _read(path, archive, entry) for name, entry in names.items() if wanted is None or name in wanted}


def array_names(path: Path) -> list[str]:
    """List the arrays of an npz without reading them.

    Raises:
        DataError: As `read_npz`.
    """
    if not path.is_file():
        raise DataError(f"data.path: there is no file {path}. Give an `.npz` file that exists.")
    with _open(path) as archive:
        return [_array_name(entry) for entry in archive.namelist()]


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a compressed npz; a crash leaves the old file or none.

    Raises:
        DataError: The folder is missing, may not be written, or is full.
    """
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def write_whole(path: Path, fill: Any) -> None:
    """Let `fill(file)` write a temporary neighbour, then put it in the place of `path`.

    Raises:
        DataError: The folder is missing, may not be written, or is full.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}. Give a folder that exists and has room."
        ) from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile lets through a dozen kinds of error on damaged bytes
        raise DataError(
            f"{path.name} is no readable npz file ({_kind(error)}). It may be cut short; copy it anew, or write it "
            f"with `numpy.savez_compressed`."
        ) from None


def _read(path: Path, archive: zipfile.ZipFile, entry: str) -> NDArray[Any]:
    name = _array_name(entry)
    try:
        with archive.open(entry) as file:
            objects = _check_header(file, archive.getinfo(entry).file_size)
        if not objects:
            with archive.open(entry) as file:
                array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
                return array
    except Exception as error:  # as above, and numpy adds its own
        raise DataError(
            f"{path.name}: array {name!r} is damaged ({_kind(error)}). Copy the file anew, or write it with "
            f"`numpy.savez_compressed`."
        ) from None
    raise DataError(
        f"{path.name}: array {name!r} holds Python objects, which are never unpickled. Allowed are numbers, booleans "
        f"and fixed-width text; save it with `.astype('U')` or a numeric dtype."
    )


def _check_header(file: IO[bytes], size: int) -> bool:
    """Say whether the array holds objects; refuse a header that promises more bytes than there are."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        return True
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError("the header promises more than the file holds")
    return False


def _array_name(entry: str) -> str:
    return entry.removesuffix(".npy")


def _kind(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:120]
