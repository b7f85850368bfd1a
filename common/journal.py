"""Append-only lines of JSON, each fsync'd and chained to the one before by SHA-256."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import RunFolderError

START = "0" * 64


class Journal:
    """One file of records. A torn last line (a crash while writing) is cut off; any other damage is an error.

    Raises:
        RunFolderError: The chain is broken, or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head = START
        if path.exists():
            self._cut_torn_tail()
            for _ in self:
                pass

    def append(self, body: dict[str, Any]) -> None:
        """Write one record; it is on disk when this returns."""
        text = json.dumps(body, sort_keys=True, allow_nan=False)
        head = _link(self._head, text)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f'{{"body": {text}, "hash": "{head}"}}\n')
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunFolderError(
                f"{self.path} cannot be written: {error.strerror}. Free space, then continue with `--resume`."
            ) from None
        self._head = head

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read all records from the first, checking the chain."""
        head = START
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                body = record["body"]
                head = _link(head, json.dumps(body, sort_keys=True))
                intact = record["hash"] == head
            except (ValueError, KeyError, TypeError):
                intact = False
            if not intact:
                raise RunFolderError(
                    f"{self.path}: line {number} does not continue the chain. The file was changed or damaged; keep it "
                    f"for inspection and start anew in another folder."
                )
            yield body
        self._head = head

    def _cut_torn_tail(self) -> None:
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            keep = content.rfind(b"\n") + 1
            with self.path.open("r+b") as file:
                file.truncate(keep)


def _link(head: str, text: str) -> str:
    return hashlib.sha256(f"{head}\n{text}".encode()).hexdigest()
