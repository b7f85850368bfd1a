"""The `.json` beside an archive: names of classes and sites, and the licence."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DataError


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The checked content of a sidecar; every method answers () or "" where the file says nothing."""

    source: str
    content: Mapping[str, Any]

    def text(self, key: str) -> str:
        """Give a text; a table of texts is joined by "; "."""
        value = self.content.get(key, "")
        if isinstance(value, Mapping):
            return "; ".join(f"{name}: {text}" for name, text in value.items())
        return str(value)

    def names(self, key: str) -> tuple[str, ...]:
        """Give the names that stand under `key` as a list, or as a table from index to name.

        A comma becomes a semicolon, because settings separate names by commas. Negative indices (`"-1": "not given"`)
        name what is no class and are left out.

        Raises:
            DataError: Neither list nor table, indices with gaps, or two equal names.
        """
        value = self.content.get(key)
        if value is None:
            return ()
        if isinstance(value, Mapping):
            value = self._ordered(key, value)
        if not isinstance(value, list) or not all(isinstance(name, str | int) for name in value):
            raise DataError(
                f"{self.source}: {key!r} must be a list of names, or a table from index to name. Correct it."
            )
        names = tuple(str(name).replace(",", ";").strip() for name in value)
        if len(set(names)) < len(names) or not all(names):
            raise DataError(f"{self.source}: {key!r} holds empty or equal names. Every index needs a name of its own.")
        return names

    def _ordered(self, key: str, table: Mapping[str, Any]) -> list[Any]:
        try:
            indexed = {int(index): name for index, name in table.items()}
        except ValueError:
            indexed = {}
        names = [indexed[index] for index in sorted(indexed) if index >= 0]
        if not names or sorted(index for index in indexed if index >= 0) != list(range(len(names))):
            raise DataError(
                f"{self.source}: the keys of {key!r} are {', '.join(list(table)[:8]) or 'missing'}. Allowed are the "
                f"indices 0, 1, 2, … without gaps."
            )
        return names


def read_sidecar(path: Path) -> Sidecar:
    """Read the sidecar; a missing one is an empty one.

    Raises:
        DataError: The file is there and is no JSON table.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        content = {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path.name} is no readable JSON ({type(error).__name__}). Correct it, or remove it to use default names."
        ) from None
    if not isinstance(content, dict):
        raise DataError(
            f"{path.name} holds a {type(content).__name__}. Allowed is a table; see docs/reference/archive.md."
        )
    return Sidecar(path.name, content)


def short_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Shorten site names to what stands before " (" or a semicolon, where that stays unique."""
    short = tuple(name.split(" (")[0].split(";")[0].strip() for name in names)
    if len(set(map(str.casefold, short))) == len(short) and all(short):
        return short
    return names
