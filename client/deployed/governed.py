"""Who may adapt what at this site, and the log of it: off until the site's TOML says otherwise."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from client.site_settings import SiteConfig
from common.errors import ConfigError
from common.journal import Journal

LOG = "adaptation.jsonl"
OBSERVER = "fasa"
"""The method that can run locked: it measures and flags without moving anything."""
Record = dict[str, Any]


class Log:
    """What was adapted here, when, by whose artefact, and what came of it: chained, and without image or patient."""

    def __init__(self, own: SiteConfig) -> None:
        """Open it.

        Raises:
            RunFolderError: The chain is broken, or the file cannot be read.
        """
        self._journal = Journal(own.state / LOG)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._journal)

    @property
    def head(self) -> str:
        """Hash of the last record, which stands for all of them."""
        return self._journal.head

    @property
    def rolled_back(self) -> str:
        """When adaptation was rolled back; empty while it is not."""
        turns = [record for record in self if record["event"] in ("rollback", "allow")]
        return str(turns[-1]["at"]) if turns and turns[-1]["event"] == "rollback" else ""

    def note(self, event: str, **what: Any) -> None:
        """Add a record; it is on disk when this returns."""
        self._journal.append({"event": event, "at": datetime.now(UTC).isoformat(timespec="seconds"), **what})


def permitted(own: SiteConfig, method: str, log: Log) -> dict[str, Any]:
    """Give the settings under which the site lets a method adapt.

    Raises:
        ConfigError: The site's policy, or a rollback, does not let it.
    """
    policy = own.adaptation
    if policy is None:
        raise ConfigError(
            f"adaptation {method!r} was asked for and the site {own.name!r} allows none. Adaptation is off until "
            f'[adaptation] with `methods = ["{method}"]` stands in the site\'s TOML; predict without --adapt meanwhile.'
        )
    if method not in policy.methods:
        raise ConfigError(
            f"adaptation {method!r} was asked for and the site {own.name!r} allows {', '.join(policy.methods)}. Take "
            f"one of these, or let whoever answers for the model add it to `adaptation.methods`."
        )
    if when := log.rolled_back:
        raise ConfigError(
            f"adaptation was rolled back on {when} and the shipped model answers since. Find out why first; "
            f"`consilium-site adaptation allow` lifts it."
        )
    if policy.locked and method != OBSERVER:
        raise ConfigError(
            f"adaptation is locked at the site {own.name!r}: only {OBSERVER} runs, which then measures and flags. Take "
            f"it, or let whoever answers for the model set `locked = false`."
        )
    return {"locked": True} if policy.locked else {}
