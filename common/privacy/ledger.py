"""The site's lasting list of what left it and what that cost its patients.

A round is authorised before any work and recorded, on disk, before its reply is built. So a release without a record
cannot exist; a record whose reply was lost in a crash stands, and the round that is done again is charged again. The
ledger may count too much, never too little.

A head file beside the journal holds the number of lines and the last hash: a ledger that was cut, or an older copy put
back, is found and nothing is released until a person has looked at it.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from common.arrays import write_atomic
from common.errors import BudgetExhaustedError, LedgerError, RunFolderError
from common.journal import START, Journal
from common.privacy.accountant import Cost, cost
from common.privacy.budget import Budget, Spend
from common.privacy.events import Event, from_json, to_json

log = logging.getLogger(__name__)
NAME, HEAD, LOCK = "ledger.jsonl", "ledger.head", "ledger.lock"
MOST_COMBINATIONS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What one reply lets out: for which run and round, on whose data, and by which mechanisms.

    `cohort` is the split's id and the part of it, "3fa9…/train": parts of one split share no patient, so their costs
    do not add; parts of different splits may share some, so theirs do.
    """

    run: str
    round: int
    purpose: str
    cohort: str
    events: tuple[Event, ...]
    placement: str = "site"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A release that was recorded: when (UTC), how many bytes and their SHA-256; `clock` tells of a clock set back."""

    at: str
    release: Release
    size: int
    digest: str
    clock: str


class Ledger:
    """One site's ledger in a folder, open for one process at a time; use `opened`.

    Raises:
        LedgerError: The chain is broken (which line), or the ledger is shorter than its head says.
    """

    def __init__(self, folder: Path, budget: Budget) -> None:
        self.folder, self.budget = folder, budget
        try:
            self._journal = Journal(folder / NAME)
            self._bodies = list(self._journal)
        except RunFolderError as error:
            raise LedgerError(f"{error} Nothing is released until the site has found out what happened.") from None
        self._check_head()
        self._open: tuple[Release, ...] = ()

    def entries(self) -> list[Entry]:
        """Give what was released, in order; what was authorised and never recorded released nothing."""
        return [_entry(body) for body in self._bodies if body.get("what") == "released"]

    def spend(self, ahead: Sequence[Release] = ()) -> Spend:
        """Price everything recorded, and releases that are still ahead, at the budget's delta."""
        releases = [entry.release for entry in self.entries()]
        found = price([*releases, *ahead], self.budget.delta)
        return Spend(found.epsilon, found.delta, len(releases), found.accountant)

    def authorise(self, releases: Sequence[Release], ahead: Sequence[Release] = ()) -> None:
        """Allow releases before any work is done for them.

        Args:
            releases: What the reply would let out.
            ahead: What the run still intends after it. Pricing all at once answers for every later round too, since
                less costs less; only when the whole does not fit is this round priced by itself.

        Raises:
            BudgetExhaustedError: The site's patients would be charged more than the budget.
        """
        allowed = self.budget.epsilon
        if not ahead or self.spend([*releases, *ahead]).epsilon > allowed:
            asked = self.spend(releases).epsilon
            if asked > allowed:
                raise BudgetExhaustedError(
                    f"epsilon would be {asked:.4g} at delta {self.budget.delta:g} and the site allows {allowed:g}; "
                    f"{self.spend().epsilon:.4g} is spent. Nothing was computed. End the study here, or let the site "
                    f"decide on a larger budget."
                )
        for release in releases:
            self._write({"what": "authorised", "at": _now(), **_body(release)})
        self._open = tuple(releases)

    def record(self, release: Release, size: int, digest: str) -> None:
        """Charge a release that was authorised; on disk when this returns, and only then may its reply be built.

        Raises:
            LedgerError: It was not authorised by this object.
        """
        if release not in self._open:
            raise LedgerError(
                f"round {release.round} of run {release.run[:12]} was not authorised for {release.purpose!r}. Every "
                f"release is authorised first; this is a defect of the program, report it."
            )
        self._open = tuple(each for each in self._open if each != release)
        now = _now()
        last = max((body["at"] for body in self._bodies), default="")
        clock = "set back" if now < last else "forward"
        if clock != "forward":
            log.warning("the clock was set back since the ledger's last line; the spend is recorded all the same")
        self._write({"what": "released", "at": now, "clock": clock, "size": size, "digest": digest, **_body(release)})

    @property
    def head(self) -> str:
        """SHA-256 that stands for the whole ledger."""
        return self._journal.head

    def _write(self, body: dict[str, Any]) -> None:
        try:
            self._journal.append(body)
            write_atomic(self.folder / HEAD, json.dumps({"lines": len(self._bodies) + 1, "hash": self.head}).encode())
        except RunFolderError as error:
            raise LedgerError(f"{error} A release that cannot be charged is not made.") from None
        self._bodies.append(body)

    def _check_head(self) -> None:
        path, lines = self.folder / HEAD, len(self._bodies)
        try:
            head: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"lines": 0, "hash": START}
            known, digest = int(head["lines"]), str(head["hash"])
        except (OSError, ValueError, KeyError, TypeError):
            raise LedgerError(f"{path} cannot be read. Put back the one of the last backup together with it.") from None
        # The head may be behind, for a crash or a full disk kept it from being written; what it knows must still stand.
        if self._journal.head_of(known) != digest or (not path.exists() and lines > 1):
            raise LedgerError(
                f"{self.folder / NAME} has {lines} lines and its head knows {known}: it was cut, or an older copy was "
                f"put back. Restore the newest copy of both files; nothing is released until then."
            )


@contextmanager
def opened(folder: Path, budget: Budget) -> Iterator[Ledger]:
    """Hold a site's ledger, alone.

    Raises:
        LedgerError: Another process holds it, or it is not what it must be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LedgerError(f"{folder} cannot hold a ledger: {error.strerror}. Give the site a `state` folder.") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise LedgerError(
            f"{folder / NAME} is in use by another process. One client at a time may spend a site's budget; end the "
            f"other one, or wait for it."
        ) from None
    try:
        yield Ledger(folder, budget)
    finally:
        os.close(handle)


def price(releases: Sequence[Release], delta: float) -> Cost:
    """Give what a patient may have been charged at most.

    In each split a patient stands in one part only, and which one is not known: of all ways to choose one part of
    every split the dearest counts. Beyond 32 ways all parts are simply added.
    """
    splits: dict[str, dict[str, list[Event]]] = {}
    for release in releases:
        split, _, part = release.cohort.partition("/")
        splits.setdefault(split, {}).setdefault(part, []).extend(release.events)
    ways = 1
    for parts in splits.values():
        ways *= len(parts)
    if ways > MOST_COMBINATIONS:
        return cost([event for release in releases for event in release.events], delta)
    costs = [
        cost([event for part in chosen for event in part], delta)
        for chosen in product(*(parts.values() for parts in splits.values()))
    ]
    return max(costs, key=lambda each: each.epsilon)


def _body(release: Release) -> dict[str, Any]:
    return {**asdict(release), "events": [to_json(event) for event in release.events]}


def _entry(body: dict[str, Any]) -> Entry:
    try:
        release = Release(
            run=body["run"],
            round=body["round"],
            purpose=body["purpose"],
            cohort=body["cohort"],
            events=tuple(from_json(event) for event in body["events"]),
            placement=body.get("placement", "site"),
        )
        return Entry(at=body["at"], release=release, size=body["size"], digest=body["digest"], clock=body["clock"])
    except (KeyError, TypeError):
        raise LedgerError(
            f"a line of the ledger has the fields {', '.join(sorted(body))}, which this version does not read. Use the "
            f"version that wrote it."
        ) from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
