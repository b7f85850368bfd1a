"""A site's side of one secure sum: advertise, share, mask, unmask; each once, in this order.

Source: Bonawitz et al. 2017, double masking on a complete graph, with every message signed and masks bound to the set
of sites whose shares arrived, so that sites which were told different sets never cancel.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import Any

import numpy as np

from common.errors import SecureAggregationError
from common.secagg.identity import SIGNATURE_BYTES, Identity, Roster
from common.secagg.keys import Tag, derived, fresh_secret, pair_key, public_of, seal, unseal
from common.secagg.masks import DTYPES, Mask, Masks, Ring
from common.secagg.params import Params, SitePolicy
from common.secagg.parcels import Advert, UnmaskRequest, survivors
from common.secagg.shamir import SHARE_BYTES, shares
from common.secagg.wire import digest, malformed, names

STAGES = ("advertise", "share", "mask", "unmask", "done")


@dataclass(slots=True)
class SiteSession:
    """One site's state; `sealed` keeps it between two messages, for a client's process may end after each.

    Args:
        identity: The site's key.
        roster: All sites' public keys.
        policy: What the site insists on.
        params: The sum. Check it with `policy.check` first.
    """

    identity: Identity
    roster: Roster
    policy: SitePolicy
    params: Params
    stage: str = "advertise"
    _secrets: dict[str, bytes] = field(default_factory=dict, repr=False)
    _adverts: dict[str, Advert] = field(default_factory=dict)
    _held: dict[str, bytes] = field(default_factory=dict, repr=False)

    def advertise(self) -> Advert:
        """Give fresh public keys, signed."""
        self._enter("advertise")
        self._secrets = {"share": fresh_secret(), "mask": fresh_secret(), "self": fresh_secret()}
        keys = public_of(self._secrets["share"]), public_of(self._secrets["mask"])
        unsigned = Advert(self.identity.site, *keys, b"")
        signature = self.identity.sign(self.params.context, "advert", unsigned.payload)
        advert = Advert(self.identity.site, *keys, signature)
        self._adverts = {self.identity.site: advert}
        return advert

    def share(self, adverts: Mapping[str, Advert]) -> dict[str, bytes]:
        """Check everybody's keys and give each other site its sealed shares of this site's two secrets.

        Raises:
            SecureAggregationError: `too-few-sites`, `not-asked`, `own-key-changed`, `sybil`, `wrong-signature`,
                `unknown-site`, `colluders` or `low-order-key`.
        """
        self._enter("share")
        me = self.identity.site
        self._check_adverts(adverts)
        self._adverts = dict(adverts)
        order, view = sorted(adverts), self._view
        parts = [
            shares(self._secrets[which], self.params.threshold, len(order), secret_context(view, me, which))
            for which in ("self", "mask")
        ]
        sealed = {}
        for site, own, mask in zip(order, *parts, strict=True):
            if site == me:
                self._held[me] = own + mask
            else:
                key = self._pair("share", adverts[site].share_key)
                sealed[site] = seal(key, own + mask, view, me.encode(), site.encode())
        return sealed

    def mask(self, pieces: Iterable[Ring], sealed: Mapping[str, bytes]) -> tuple[Ring, bytes]:
        """Mask the site's vector for the sites whose sealed shares arrived here, and tag it for the server.

        Args:
            pieces: The vector, piece by piece; each is masked in place and copied before the next is asked for, so that
                it is nowhere whole but in the masked result.
            sealed: Sealed shares for this site, by sender.

        Returns:
            The masked vector, read-only, a view of bytes that can be sent as they are; and its tag.

        Raises:
            SecureAggregationError: `length`, `too-few-sites`, `unknown-site` or `sealed-wrong`; and what making the
                pieces raises. Nothing is to be sent then, and the sum is over for this site.
        """
        self._enter("mask")
        bound, masks = self._masks(sealed)
        dtype = DTYPES[self.params.ring_bits]
        size = self.params.length * dtype.itemsize
        tag = Tag(tag_key(self._secrets["share"], bytes.fromhex(self.params.server_key), bound))
        running, out = Masks(masks, dtype), BytesIO(bytes(size))
        for piece in pieces:
            if piece.dtype != dtype or out.tell() + piece.nbytes > size:
                raise _refused(
                    "length", f"more than {self.params.length} entries, or of {piece.dtype}, were to be masked"
                )
            running.add(piece)
            tag.see(piece)
            out.write(piece.data)
        if out.tell() < size:
            raise _refused("length", f"fewer than {self.params.length} entries were to be masked")
        return np.frombuffer(out.getvalue(), dtype), tag.give()

    def _masks(self, sealed: Mapping[str, bytes]) -> tuple[bytes, list[Mask]]:
        """Open the shares, and give what masks are bound to and their keys."""
        me, view = self.identity.site, self._view
        peers = set(sealed)
        if not peers <= set(self._adverts) - {me}:
            raise _refused("unknown-site", "sealed shares came from a site that advertised nothing")
        self._check_enough(len(peers) + 1)
        for site in peers:
            content = unseal(
                self._pair("share", self._adverts[site].share_key), sealed[site], view, site.encode(), me.encode()
            )
            if len(content) != 2 * SHARE_BYTES:
                raise malformed("a sealed share has another length")
            self._held[site] = content
        bound = mask_context(view, {site: self._adverts[site] for site in self._held})
        masks: list[Mask] = [(derived(self._secrets["self"], "self", bound), 1)]
        for site in sorted(peers):
            key = pair_key(self._secrets["mask"], self._adverts[site].mask_key, "pair", bound)
            masks.append((key, 1 if me < site else -1))
        return bound, masks

    def vote(self, alive: tuple[str, ...], dropped: tuple[str, ...]) -> bytes:
        """Sign who lives and who dropped, for sums with `signed`; the request to unmask must then say the same."""
        if self.stage != "unmask" or "voted" in self._secrets:
            raise _refused("out-of-order", "a vote was asked for out of turn, or twice")
        self._check_survivors(alive, dropped)
        self._secrets["voted"] = survivors(alive, dropped)
        return self.identity.sign(self._view, "survivors", self._secrets["voted"])

    def unmask(self, request: UnmaskRequest) -> tuple[dict[str, bytes], bytes]:
        """Give of each site exactly one share: of the self mask of who lives, of the mask key of who dropped; and sign.

        Afterwards every secret is gone: nothing of this sum can be opened again.

        Raises:
            SecureAggregationError: `out-of-order` (a second time), `survivors` (the lists overlap, leave out somebody,
                or call this site dropped), `too-few-sites`, or `votes`.
        """
        if self.stage != "unmask":
            raise _refused("out-of-order", f"unmasking was asked for at stage {self.stage!r}")
        self._check_survivors(request.alive, request.dropped)
        if self.params.signed:
            self._check_votes(request)
        self._enter("unmask")
        given = {site: self._held[site][:SHARE_BYTES] for site in request.alive}
        given |= {site: self._held[site][SHARE_BYTES:] for site in request.dropped}
        view = self._view
        self._secrets, self._held, self._adverts = {}, {}, {}
        content = digest([field for site in sorted(given) for field in (site.encode(), given[site])])
        return given, self.identity.sign(view, "shares", content)

    def sealed(self) -> bytes:
        """Give the whole state, encrypted under a key of the site's own."""
        body = {
            "params": asdict(self.params),
            "stage": self.stage,
            "secrets": {name: value.hex() for name, value in self._secrets.items()},
            "adverts": [advert.to_bytes().hex() for advert in self._adverts.values()],
            "held": {site: value.hex() for site, value in self._held.items()},
        }
        return seal(self.identity.sealing_key(), json.dumps(body).encode(), b"session", self.identity.site.encode())

    @classmethod
    def restored(cls, content: bytes, identity: Identity, roster: Roster, policy: SitePolicy) -> "SiteSession":
        """Read what `sealed` gave.

        Raises:
            SecureAggregationError: `sealed-wrong`.
        """
        body: dict[str, Any] = json.loads(unseal(identity.sealing_key(), content, b"session", identity.site.encode()))
        params = Params(**{**body["params"], "sites": tuple(body["params"]["sites"])})
        adverts = [Advert.from_bytes(bytes.fromhex(each)) for each in body["adverts"]]
        return cls(
            identity,
            roster,
            policy,
            params,
            body["stage"],
            {name: bytes.fromhex(value) for name, value in body["secrets"].items()},
            {advert.site: advert for advert in adverts},
            {site: bytes.fromhex(value) for site, value in body["held"].items()},
        )

    def _enter(self, stage: str) -> None:
        if self.stage != stage:
            raise _refused("out-of-order", f"stage {stage!r} was asked for at stage {self.stage!r}")
        self.stage = STAGES[STAGES.index(stage) + 1]

    @property
    def _view(self) -> bytes:
        return view_of(self.params.context, self._adverts)

    def _pair(self, use: str, public: bytes) -> bytes:
        return pair_key(self._secrets[use], public, use, self._view)

    def _check_adverts(self, adverts: Mapping[str, Advert]) -> None:
        me, context = self.identity.site, self.params.context
        if any(site != advert.site for site, advert in adverts.items()) or not set(adverts) <= set(self.params.sites):
            raise _refused("unknown-site", "an advert is of another site than it says, or of none of the cohort")
        if adverts.get(me) != self._adverts[me]:
            raise _refused("own-key-changed", "this site's own keys did not come back as they were sent")
        self._check_enough(len(adverts))
        keys = [key for advert in adverts.values() for key in (advert.share_key, advert.mask_key)]
        if len(set(keys)) != len(keys):
            raise _refused("sybil", "one key stands under two names")
        for site, advert in adverts.items():
            self.roster.verify(site, context, "advert", advert.payload, advert.signature)

    def _check_enough(self, sites: int) -> None:
        least = max(self.policy.fewest, self.params.least)
        if sites < least:
            raise _refused("too-few-sites", f"{sites} sites are left where {least} are needed")

    def _check_survivors(self, alive: tuple[str, ...], dropped: tuple[str, ...]) -> None:
        everyone = [*alive, *dropped]
        if sorted(everyone) != sorted(self._held) or self.identity.site not in alive:
            raise _refused("survivors", "who lives and who dropped does not add up to those whose shares arrived")
        self._check_enough(len(alive))

    def _check_votes(self, request: UnmaskRequest) -> None:
        if self._secrets.get("voted") != request.payload:
            raise _refused("votes", "the survivors are not those that this site signed")
        if not set(request.votes) <= set(request.alive):
            raise _refused("votes", "a site that does not live has voted")
        for site, signature in request.votes.items():
            if len(signature) != SIGNATURE_BYTES:
                raise malformed("a vote has another length")
            self.roster.verify(site, self._view, "survivors", request.payload, signature)
        self._check_enough(len(request.votes))


def view_of(context: bytes, adverts: Mapping[str, Advert]) -> bytes:
    """Bind all that follows the adverts to the very adverts that a site saw.

    Sites that were shown different ones cannot open each other's shares, so a server that shows one site a small
    cohort, with a share or two of which it then opens the others' keys, gets nothing from it.
    """
    fields = [field for site in sorted(adverts) for field in (site.encode(), adverts[site].payload)]
    return digest([b"view", context, *fields])


def mask_context(context: bytes, adverts: Mapping[str, Advert]) -> bytes:
    """Bind masks to the sites whose shares arrived, and to their keys."""
    return digest([context, digest(names(adverts)), *(adverts[site].payload for site in sorted(adverts))])


def tag_key(secret: bytes, public: bytes, bound: bytes) -> bytes:
    """Give the key of the tag on a masked vector, which only its site and the server can make.

    The site's key for shares is signed and never opened, so nobody else can tag in its name; that the server's is not
    signed does no harm, for only its owner accepts the tag.
    """
    return pair_key(secret, public, "tag", bound)


def secret_context(context: bytes, site: str, which: str) -> bytes:
    """Bind a shared secret to its owner and kind."""
    return digest([context, site.encode(), which.encode()])


def _refused(name: str, found: str) -> SecureAggregationError:
    return SecureAggregationError(
        name, f"this site goes no further: {found}. Nothing more of this sum is sent; begin the round anew."
    )
