"""The bracket around everything that leaves a site: authorised before the work, recorded before the reply."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from client.site import Site
from common.arrays import Arrays
from common.config import RunConfig
from common.errors import BudgetExhaustedError, ConfigError, DataError, PrivacyError
from common.privacy.budget import Budget
from common.privacy.ledger import Ledger, Release, opened


@dataclass(slots=True)
class Charge:
    """What is being let out; `leave` must be called with it before a reply is built."""

    ledger: Ledger | None
    releases: list[Release]

    def leave(self, arrays: Arrays) -> None:
        """Record every release as gone, with the size and SHA-256 of what goes."""
        if self.ledger is None:
            return
        size = sum(array.nbytes for array in arrays.values())
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(name.encode() + arrays[name].tobytes())
        for release in self.releases:
            self.ledger.record(release, size, digest.hexdigest())


@contextmanager
def charged(config: RunConfig, site: Site, releases: list[Release], ahead: list[Release]) -> Iterator[Charge]:
    """Authorise releases and hold the site's ledger until they have left, or failed.

    Where the run has no privacy, a site keeps a ledger only when its own settings have a budget; a release without
    noise is then more than any budget allows.

    Raises:
        BudgetExhaustedError: The releases would cost more than the site allows, or than the run where the site has no
            budget of its own.
        ConfigError: The site has no folder for a ledger.
        DataError: As `check_cohort`.
        PrivacyError: The run leaves the noise to the server, whom the site's budget does not trust.
    """
    check_cohort(config, site)
    if not config.privacy.on and site.budget is None:
        yield Charge(None, releases)
        return
    budget = site.budget or Budget(config.privacy.epsilon, config.privacy.delta)
    budget.check_patients(site.patients)
    if site.budget and config.privacy.placement == "central" and not site.budget.trusts_server:
        raise PrivacyError(
            "'privacy.placement' is 'central', so that what leaves has no noise yet, and the site has a [budget]. "
            "Set `trusts-server` there if the server may see it, or let the run place the noise at the site."
        )
    if config.privacy.on and config.privacy.delta > budget.delta:
        raise BudgetExhaustedError(
            f"the run's delta is {config.privacy.delta:g} and the site allows {budget.delta:g}. Lower `privacy.delta`."
        )
    if site.ledger is None:
        raise ConfigError("a run under privacy keeps a ledger at every site and needs a folder. Set `out`.")
    with opened(site.ledger, budget) as ledger:
        ledger.authorise(releases, ahead)
        yield Charge(ledger, releases)


def check_cohort(config: RunConfig, site: Site) -> None:
    """Refuse to take part with too few patients.

    Raises:
        DataError: `privacy.fewest-patients` is more than the site has.
    """
    if config.privacy.on and site.patients < config.privacy.fewest_patients:
        raise DataError(
            f"the site has {site.patients} training patients and `privacy.fewest-patients` is "
            f"{config.privacy.fewest_patients}. Noise that hides so few leaves no model; leave the site out."
        )
