"""Append-only lines of JSON, each fsync'd and chained to the one before by SHA-256."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.errors import RunFolderError

START = "0" * 64
# A line is BEFORE + body + BETWEEN + hash + AFTER. The hash covers the body's text as it stands, not as it would be
# written anew.
BEFORE, BETWEEN, AFTER = '{"body": ', ', "hash": "', '"}'


class Journal:
    """One file of records. A torn last line (a crash while writing) is cut off; any other damage is an error.

    One writer at a time: a record that another process appended meanwhile breaks the chain and is found on reading.

    Raises:
        RunFolderError: The chain is broken, or the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cut_torn_tail()
        self._heads = [START, *(head for head, _ in self._links())]

    def append(self, body: dict[str, Any]) -> None:
        """Write one record; it is on disk when this returns, or the file is as it was before.

        Raises:
            RunFolderError: The disk is full or the file cannot be written.
            ValueError: The record holds NaN or infinity, which are no JSON.
        """
        text = json.dumps(body, sort_keys=True, allow_nan=False)
        head = _link(self.head, text)
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                _write_all(file.fileno(), f"{BEFORE}{text}{BETWEEN}{head}{AFTER}\n".encode())
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):  # else the next record would continue a torn line
                os.truncate(self.path, size)
            raise self._unwritable(error) from None
        self._heads.append(head)

    @property
    def head(self) -> str:
        """Hash of the last record, which stands for all of them."""
        return self._heads[-1]

    def head_of(self, records: int) -> str | None:
        """Hash that stands for the first `records` records; None where there are fewer."""
        return self._heads[records] if 0 <= records < len(self._heads) else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read all records from the first, checking the chain."""
        return (json.loads(text) for _, text in self._links())

    def _links(self) -> Iterator[tuple[str, str]]:
        """Give each line's hash and the text of its body."""
        head = START
        for number, line in enumerate(self._read().split(b"\n")[:-1], 1):
            text = line.decode(errors="replace").rpartition(BETWEEN)[0].removeprefix(BEFORE)
            head = _link(head, text)
            if line != f"{BEFORE}{text}{BETWEEN}{head}{AFTER}".encode():
                raise RunFolderError(
                    f"{self.path}: line {number} does not continue the chain. The file was changed or damaged; keep it "
                    f"for inspection and start anew in another folder."
                )
            yield head, text

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be read: {error.strerror}. Give a folder of your own.") from None

    def _cut_torn_tail(self) -> None:
        content = self._read()
        if content and not content.endswith(b"\n"):
            try:
                os.truncate(self.path, content.rfind(b"\n") + 1)
            except OSError as error:
                raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"{self.path} cannot be written: {error.strerror}. Free space, then continue with `--resume`."
        )


def _write_all(descriptor: int, content: bytes) -> None:
    """Write everything: a single write may stop early when the disk fills up."""
    while content:
        content = content[os.write(descriptor, content) :]


def _link(head: str, text: str) -> str:
    return hashlib.sha256(f"{head}\n{text}".encode()).hexdigest()
