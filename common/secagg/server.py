"""The server's side of one secure sum: it forwards, adds, and opens the sum of those who stayed, once.

Nothing here is trusted by the sites: what protects them they check themselves. What the server checks protects the sum.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from common.errors import SecureAggregationError
from common.secagg.identity import Roster
from common.secagg.keys import Tag, derived, pair_key, public_of
from common.secagg.masks import DTYPES, Mask, Ring, add_masks
from common.secagg.params import Params
from common.secagg.parcels import Advert, UnmaskRequest, survivors
from common.secagg.shamir import SHARE_BYTES, opened
from common.secagg.site import mask_context, secret_context, tag_key, view_of
from common.secagg.wire import digest


@dataclass(slots=True)
class ServerSession:
    """State of one sum. Its memory is the running sum and the vector that is being added.

    Sites that a check turns away are named in `refused`, by code; the sum goes on without them while enough are left.

    Args:
        params: The sum.
        roster: The sites' public keys.
        secret: The private key of `params.server_key`.
    """

    params: Params
    roster: Roster
    secret: bytes = field(repr=False)
    refused: dict[str, str] = field(default_factory=dict)
    _adverts: dict[str, Advert] = field(default_factory=dict)
    _sealed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _alive: list[str] = field(default_factory=list)
    _votes: dict[str, bytes] = field(default_factory=dict)
    _shares: dict[str, dict[str, bytes]] = field(default_factory=dict, repr=False)
    _total: Ring | None = None
    _closed: bool = False
    _opened: bool = False

    def take_advert(self, site: str, advert: Advert) -> None:
        """Keep a site's keys when it signed them."""
        try:
            if site != advert.site or site not in self.params.sites or site in self._adverts:
                raise _refused("unknown-site", f"an advert of {advert.site!r} came from {site!r}, or twice")
            self.roster.verify(site, self.params.context, "advert", advert.payload, advert.signature)
            self._adverts[site] = advert
        except SecureAggregationError as error:
            self.refused[site] = error.refusal

    def adverts(self) -> dict[str, Advert]:
        """Give the keys of all who advertised, for all of them.

        Raises:
            SecureAggregationError: `too-few-sites`.
        """
        self._check_enough(len(self._adverts), "advertised")
        return dict(self._adverts)

    def take_shares(self, site: str, sealed: Mapping[str, bytes]) -> None:
        """Keep a site's sealed shares; it must have one for every other site."""
        if site in self._adverts and set(sealed) == set(self._adverts) - {site} and site not in self._sealed:
            self._sealed[site] = dict(sealed)
        else:
            self.refused[site] = "malformed"

    def sealed_for(self) -> dict[str, dict[str, bytes]]:
        """Give each site that sent shares those that are meant for it, by sender.

        Raises:
            SecureAggregationError: `too-few-sites`.
        """
        self._check_enough(len(self._sealed), "sent shares")
        return {
            site: {other: self._sealed[other][site] for other in self._sealed if other != site} for site in self._sealed
        }

    def take_masked(self, site: str, vector: Ring, tag: bytes) -> None:
        """Add a masked vector."""
        try:
            if site not in self._sealed or site in self._alive or self._closed:
                raise _refused("out-of-order", f"{site!r} sent a vector out of turn, too late, or twice")
            if vector.shape != (self.params.length,) or vector.dtype != DTYPES[self.params.ring_bits]:
                raise _refused("length", f"{site!r} sent {vector.shape} of {vector.dtype}")
            own = Tag(tag_key(self.secret, self._adverts[site].share_key, self._bound()))
            own.see(np.ascontiguousarray(vector))
            if not hmac.compare_digest(own.give(), tag):
                raise _refused("wrong-tag", f"the vector of {site!r} was changed on the way, or is of another sum")
        except SecureAggregationError as error:
            self.refused[site] = error.refusal
            return
        if self._total is None:
            self._total = vector.copy()
        else:
            np.add(self._total, vector, out=self._total)
        self._alive.append(site)

    def who(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Say who lives and who dropped after sending shares.

        Raises:
            SecureAggregationError: `too-few-sites`.
        """
        self._check_enough(len(self._alive), "sent their vectors")
        return tuple(sorted(self._alive)), tuple(sorted(set(self._sealed) - set(self._alive)))

    def take_vote(self, site: str, signature: bytes) -> None:
        """Keep a vote on the survivors (sums with `signed` only)."""
        try:
            self.roster.verify(site, self._view, "survivors", survivors(*self.who()), signature)
            self._votes[site] = signature
        except SecureAggregationError as error:
            self.refused[site] = error.refusal

    def request(self) -> UnmaskRequest:
        """Give the request to unmask. Once it is made nobody can join: a vector that comes later is turned away."""
        found = UnmaskRequest(*self.who(), dict(self._votes))
        self._closed = True
        return found

    def take_unmasked(self, site: str, given: Mapping[str, bytes], signature: bytes) -> None:
        """Keep a site's opened shares."""
        try:
            if site not in self._alive or site in self._shares or set(given) != set(self._sealed):
                raise _refused("out-of-order", f"{site!r} opened shares out of turn, twice, or not all")
            if any(len(share) != SHARE_BYTES for share in given.values()):
                raise _refused("malformed", f"{site!r} opened shares of another length")
            content = digest([field for each in sorted(given) for field in (each.encode(), given[each])])
            self.roster.verify(site, self._view, "shares", content, signature)
            self._shares[site] = dict(given)
        except SecureAggregationError as error:
            self.refused[site] = error.refusal

    def open(self) -> tuple[Ring, tuple[str, ...]]:
        """Take the masks off and give the sum, and whose it is.

        Sites whose shares turn out wrong are named in `refused`; their vectors are in the sum all the same. Either they
        changed the shares or were dealt wrong ones; where no shares agree, whoever dealt them is named.

        Raises:
            SecureAggregationError: `too-few-shares`, `corrupted-share`, `out-of-order` (a second time).
        """
        alive, dropped = self.who()
        if self._opened or self._total is None:
            raise _refused("out-of-order", "a sum is opened once")
        t = self.params.threshold
        if len(self._shares) < t:
            raise _refused("too-few-shares", f"{len(self._shares)} sites opened their shares and {t} are needed")
        self._opened = True
        bound = self._bound()
        masks: list[Mask] = [(derived(self._secret(site, "self", t), "self", bound), -1) for site in alive]
        for site in dropped:
            masks += self._left_over(site, self._secret(site, "mask", t), bound)
        add_masks(self._total, masks)
        return self._total, alive

    def _left_over(self, site: str, secret: bytes, bound: bytes) -> list[Mask]:
        """Give the masks on the others' vectors that a dropped site would have cancelled."""
        if public_of(secret) != self._adverts[site].mask_key:
            raise _refused("swapped-key", f"the mask key of {site!r} is not the one it advertised")
        return [
            (pair_key(secret, self._adverts[other].mask_key, "pair", bound), -1 if other < site else 1)
            for other in self._alive
        ]

    def _secret(self, site: str, which: str, t: int) -> bytes:
        points = {name: point for point, name in enumerate(sorted(self._adverts), 1)}
        found = {points[other]: given[site] for other, given in self._shares.items()}
        good = {point: found[point] for other, point in points.items() if point in found and other not in self.refused}
        try:
            secret, wrong = opened(good if len(good) >= t else found, t, secret_context(self._view, site, which))
        except SecureAggregationError as error:
            self.refused[site] = error.refusal
            raise
        for name, point in points.items():
            if point in wrong:
                self.refused[name] = "corrupted-share"
        return secret

    @property
    def _view(self) -> bytes:
        return view_of(self.params.context, self._adverts)

    def _bound(self) -> bytes:
        return mask_context(self._view, {site: self._adverts[site] for site in self._sealed})

    def _check_enough(self, sites: int, what: str) -> None:
        if sites < self.params.least:
            raise _refused("too-few-sites", f"{sites} sites {what} and {self.params.least} are needed")


def _refused(name: str, found: str) -> SecureAggregationError:
    return SecureAggregationError(name, f"the sum is not opened: {found}. Begin the round anew.")
