"""A family of parts: a literal table from name to "module:attribute", imported only when asked for."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from common.errors import UnknownNameError


class Registry(Mapping[str, str]):
    """A named, read-only table of parts."""

    def __init__(self, what: str, table: dict[str, str]) -> None:
        self.what = what
        self._table = dict(table)

    def load(self, name: str) -> Any:
        """Import the part called `name`.

        Raises:
            UnknownNameError: The table has no such name.
        """
        if name not in self._table:
            raise UnknownNameError(self.what, name, list(self._table))
        module, _, attribute = self._table[name].partition(":")
        return getattr(import_module(module), attribute)

    def __getitem__(self, name: str) -> str:
        return self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)
