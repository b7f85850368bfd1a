"""What `consilium-site ledger` says of a ledger: rows, a summary, and the items of NIST SP 800-226."""

from pathlib import Path
from typing import Any

from client.site_settings import read_site_config
from common.errors import ConfigError
from common.privacy.budget import Budget
from common.privacy.ledger import Entry, Ledger, price
from common.privacy.statement import NEIGHBOURS, statement

LOOKED = Budget(100.0, 1e-5)
"""Delta at which a ledger is priced whose site has no budget."""
NOTHING = "Nothing about any patient has left this site."
CAVEATS = {
    "central": "{} of {} releases left without noise, which the server added: against the server, and against whoever "
    "reads what reaches it, the figure says nothing of them.",
    "distributed": "{} of {} releases carry a share of the noise: the figure holds as long as secure aggregation does.",
}
UNRECORDED = (
    "No [budget] is known here: without one a run without noise is not refused, and does not stand in this ledger."
)


def where(path: Path) -> tuple[Path, Budget | None]:
    """Find the ledger of a site's TOML, or in a folder, and the site's budget.

    Raises:
        ConfigError: There is none.
    """
    if path.is_dir():
        found = path if (path / "ledger.jsonl").exists() else path / "ledger"
        if not (found / "ledger.jsonl").exists():
            raise ConfigError(f"{path} holds no ledger.jsonl. Give the site's TOML, or the folder of its ledger.")
        return found, None
    own = read_site_config(path)
    return own.state / "ledger", own.budget.allows if own.budget else None


def rows_of(entries: list[Entry], delta: float) -> list[dict[str, Any]]:
    """Give every release, with what all up to it cost."""
    releases = [entry.release for entry in entries]
    return [
        {
            "at": entry.at,
            "clock": entry.clock,
            "run": entry.release.run,
            "round": entry.release.round,
            "purpose": entry.release.purpose,
            "cohort": entry.release.cohort,
            "placement": entry.release.placement,
            "bytes": entry.size,
            "sha256": entry.digest,
            "epsilon": price(releases[: number + 1], delta).epsilon,
        }
        for number, entry in enumerate(entries)
    ]


def summary(ledger: Ledger, budget: Budget | None) -> dict[str, Any]:
    """Say what the whole ledger costs."""
    spend = ledger.spend()
    left = [entry.release.placement for entry in ledger.entries()]
    caveats = [text.format(left.count(where), len(left)) for where, text in CAVEATS.items() if where in left]
    return {
        "epsilon": spend.epsilon,
        "delta": spend.delta,
        "accountant": spend.accountant,
        "allowed": budget.epsilon if budget else None,
        "releases_made": spend.releases,
        "head": ledger.head,
        "statement": statement(spend.epsilon, spend.delta, spend.accountant) if left else NOTHING,
        "caveats": caveats if budget else [*caveats, UNRECORDED],
    }


def nist(entries: list[Entry]) -> dict[str, Any]:
    """Give one field for each item that NIST SP 800-226 asks to be said."""
    kinds = sorted({type(event).__name__ for entry in entries for event in entry.release.events})
    return {
        "unit_of_privacy": "patient: all images, labels and masks of one patient",
        "neighbouring_relation": NEIGHBOURS,
        "composition": "all releases together, over runs and studies; parts of one split share no patient",
        "mechanisms": kinds,
        "trust_model": "who adds the noise stands with each release: the site; distributed, shares that a secure sum "
        "makes whole; central, the server, who must be trusted",
        "floating_point": "noise of steps is of doubles from AES-256; shares of noise are integers",
        "data_collection": "images never leave the site; no count, loss or metric leaves without an event here",
    }
