"""What sums a site has helped to open: of one round and purpose, only ever over the same sites.

The difference of two sums over sets that differ by one site is that site's update. So the site remembers all of a run's
sums, not the last alone, and a hospital keeps them on disk: what Flower carries between messages ends with its process.
"""

import fcntl
import json
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import ConfigError, SecureAggregationError
from common.journal import Journal
from common.secagg.params import Params
from common.secagg.wire import digest, names

NOTED = "opened-sums"


@contextmanager
def opening(
    notes: MutableMapping[str, Any], folder: Path | None, terms: Params, alive: tuple[str, ...]
) -> Iterator[None]:
    """Open a sum inside; it counts as opened when the inside ends well, and nothing may be sent before that.

    Args:
        notes: Where a simulated site remembers.
        folder: Where a hospital does; each record is on disk before the shares leave.
        terms: Of the sum.
        alive: Whose sum it is.

    Raises:
        SecureAggregationError: `second-sum`: this round was opened over other sites.
        RunFolderError: The record cannot be written; the site then opens nothing.
    """
    about, whose = f"{terms.run}|{terms.purpose}|{terms.round}", digest(names(alive)).hex()
    if folder is None:
        before = json.loads(str(notes.get(NOTED, "{}")))
        _compare(before.get(about), whose)
        yield
        notes[NOTED] = json.dumps({**before, about: whose})
        return
    with _alone(folder):
        journal = Journal(folder / f"{NOTED}.jsonl")
        found = {str(record["about"]): str(record["whose"]) for record in journal}
        _compare(found.get(about), whose)
        yield
        if about not in found:
            journal.append({"about": about, "whose": whose})


def _compare(before: str | None, now: str) -> None:
    if before not in (None, now):
        raise SecureAggregationError(
            "second-sum",
            "a sum of this round was opened over other sites. Their difference would open a single update; go on with "
            "the next round, or begin a new run.",
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time compare and record: two requests at once must not both find nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f"{NOTED}.lock").open("w")
    except OSError as error:
        raise ConfigError(f"the folder {folder} cannot be written: {error.strerror}. Free space there.") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
