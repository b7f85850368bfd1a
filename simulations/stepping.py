"""Says on stderr, while a command works, what it is doing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stepping(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Give what takes a line in words; it is shown while entered, or not at all."""
    from rich.console import Console

    if quiet:
        yield lambda text: None
        return
    with Console(stderr=True).status("opening the run …") as status:
        yield lambda text: status.update(f"{text} …")
