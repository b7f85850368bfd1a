"""Secure sums played on paper: sites and server in one process, with sites that drop out wherever a test wants."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from common.errors import SecureAggregationError
from common.secagg.identity import Identity, Roster
from common.secagg.keys import fresh_secret, public_of
from common.secagg.masks import DTYPES
from common.secagg.params import Params, SitePolicy
from common.secagg.parcels import UnmaskRequest
from common.secagg.server import ServerSession
from common.secagg.site import SiteSession

SERVER = fresh_secret()
STAGES = ("advertise", "share", "mask", "vote", "unmask")


def params(sites, **changes):
    """Give the terms of a small sum."""
    base = {
        "run": "run",
        "round": 1,
        "purpose": "train",
        "attempt": 0,
        "sites": tuple(sites),
        "fewest": 3,
        "colluders": 0,
        "ring_bits": 32,
        "length": 11,
        "layout": "layout",
        "model": "model",
        "server_key": public_of(SERVER).hex(),
    }
    return Params(**{**base, **changes})


def refused(*names):
    """Expect a refusal of one of these codes: the test fails when nothing, or something else, is raised."""
    return pytest.raises(SecureAggregationError, check=lambda error: error.refusal in names)


@dataclass
class Play:
    """One sum; `lost` maps a site to the stage at which it stops answering. `seal` writes states out between stages."""

    terms: Params
    lost: dict = field(default_factory=dict)
    seal: bool = False

    def __post_init__(self):
        self.identities = {site: Identity.fresh(site) for site in self.terms.sites}
        self.roster = Roster({site: each.public for site, each in self.identities.items()})
        self.sites = {site: self.session(site) for site in self.terms.sites}
        self.server = ServerSession(self.terms, self.roster, SERVER)
        random = np.random.default_rng(0)
        dtype = DTYPES[self.terms.ring_bits]
        top = 2**self.terms.ring_bits
        self.vectors = {
            site: random.integers(0, top, self.terms.length, dtype=np.uint64).astype(dtype) for site in self.terms.sites
        }
        self.masked = {}

    def session(self, site):
        """Open a site's session."""
        return SiteSession(self.identities[site], self.roster, SitePolicy(), self.terms)

    def there(self, stage):
        """Give the sites that still answer at a stage, reopened from their sealed states if wanted."""
        gone = {site for site, when in self.lost.items() if STAGES.index(when) <= STAGES.index(stage)}
        found = [site for site in self.terms.sites if site not in gone]
        if self.seal:
            for site in found:
                state = self.sites[site].sealed()
                self.sites[site] = SiteSession.restored(state, self.identities[site], self.roster, SitePolicy())
        return found

    def advertise(self):
        """Play stage 1."""
        for site in self.there("advertise"):
            self.server.take_advert(site, self.sites[site].advertise())

    def share(self):
        """Play stage 2."""
        adverts = self.server.adverts()
        for site in self.there("share"):
            if site in adverts:
                self.server.take_shares(site, self.sites[site].share(adverts))

    def mask(self):
        """Play stage 3."""
        sealed = self.server.sealed_for()
        for site in self.there("mask"):
            if site in sealed:
                self.masked[site], tag = self.sites[site].mask([self.vectors[site].copy()], sealed[site])
                self.server.take_masked(site, self.masked[site], tag)

    def vote(self):
        """Play the extra stage of signed sums."""
        alive, dropped = self.server.who()
        for site in self.there("vote"):
            if site in alive:
                self.server.take_vote(site, self.sites[site].vote(alive, dropped))

    def unmask(self):
        """Play stage 4."""
        request = UnmaskRequest.from_bytes(self.server.request().to_bytes())
        for site in self.there("unmask"):
            if site in request.alive:
                self.server.take_unmasked(site, *self.sites[site].unmask(request))

    def run(self):
        """Play everything and give the sum and whose it is."""
        self.advertise()
        self.share()
        self.mask()
        if self.terms.signed:
            self.vote()
        self.unmask()
        return self.server.open()

    def expected(self, alive):
        """Add the clear vectors."""
        total = np.zeros_like(next(iter(self.vectors.values())))
        for site in alive:
            total += self.vectors[site]
        return total
