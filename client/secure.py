"""A site's part in secure sums: its identity, its session between two messages, and what it insists on.

A client's process may end after every message, so the session is sealed under a key of the site's identity and kept in
the notes that Flower carries from one message to the next.
"""

import hashlib
import json
from collections.abc import MutableMapping
from typing import Any

from client.site import Site
from common.arrays import Arrays
from common.config import RunConfig
from common.errors import ConfigError, SecureAggregationError
from common.messages import SumReply, SumRequest
from common.secagg.identity import Identity, Roster, simulated
from common.secagg.layout import Layout
from common.secagg.masks import Ring
from common.secagg.params import Params, SitePolicy
from common.secagg.parcels import Advert, UnmaskRequest, pack_bytes, survivors, unpack_bytes
from common.secagg.site import SiteSession

SESSION, OPENED = "session", "opened"
Notes = MutableMapping[str, Any]
"""What a client keeps from one message to the next."""


def answer(config: RunConfig, site: Site, notes: Notes, request: SumRequest) -> SumReply:
    """Answer one stage of a secure sum.

    Raises:
        SecureAggregationError: A refusal, by name.
    """
    if request.stage == "advertise":
        terms = read_terms(request.terms)
        _policy(config).check(site.name, terms, terms.layout, terms.model)
        session = SiteSession(*_who(config, site, terms), _policy(config), terms)
        content, proof = session.advertise().to_bytes(), b""
    else:
        session = resume(config, site, notes, request.terms)
        content, proof = _STAGES[request.stage](session, notes, request.content)
    keep(notes, session)
    return SumReply(site=site.name, content=content, proof=proof)


def masked(
    config: RunConfig, site: Site, notes: Notes, terms: str, sealed: bytes, contents: tuple[Layout, Arrays, Ring]
) -> tuple[Ring, bytes]:
    """Mask a vector in the session of a sum, and sign it.

    Args:
        config: The run's settings.
        site: The site.
        notes: Hold the session.
        terms: Of the sum.
        sealed: Shares from the other sites.
        contents: The layout that this site made itself, the arrays it was sent, and the vector.

    Raises:
        SecureAggregationError: The layout or model is not this site's, or a refusal of the session.
    """
    layout, arrays, vector = contents
    session = resume(config, site, notes, terms)
    session.policy.check(site.name, session.params, layout.digest, model_digest(arrays))
    proof = session.mask(vector, unpack_bytes(sealed))
    keep(notes, session)
    return vector, proof


def read_terms(text: str) -> Params:
    """Read a sum's terms.

    Raises:
        SecureAggregationError: `malformed`, or terms that protect nobody.
    """
    try:
        body = json.loads(text)
        return Params(**{**body, "sites": tuple(body["sites"])})
    except (ValueError, TypeError, KeyError):
        raise SecureAggregationError("malformed", "the terms of a sum cannot be read. Run one version.") from None


def model_digest(arrays: Arrays) -> str:
    """SHA-256 of the arrays that every site must have been sent alike."""
    hash_ = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        hash_.update(f"{name}|{array.dtype.str}|{array.shape}|".encode() + array.tobytes())
    return hash_.hexdigest()


def resume(config: RunConfig, site: Site, notes: Notes, terms: str) -> SiteSession:
    """Take up the session of a sum where its last message left it.

    Raises:
        SecureAggregationError: `out-of-order`: there is none, or one of another sum.
    """
    if SESSION not in notes:
        raise SecureAggregationError("out-of-order", "no sum has begun at this site. Begin the round anew.")
    wanted = read_terms(terms)
    session = SiteSession.restored(notes[SESSION], *_who(config, site, wanted), _policy(config))
    if session.params != wanted:
        raise SecureAggregationError("out-of-order", "another sum has begun at this site. Begin the round anew.")
    return session


def keep(notes: Notes, session: SiteSession) -> None:
    """Seal the session into the notes."""
    notes[SESSION] = session.sealed()


def _share(session: SiteSession, notes: Notes, content: bytes) -> tuple[bytes, bytes]:
    adverts = {site: Advert.from_bytes(each) for site, each in unpack_bytes(content).items()}
    return pack_bytes(session.share(adverts)), b""


def _vote(session: SiteSession, notes: Notes, content: bytes) -> tuple[bytes, bytes]:
    request = UnmaskRequest.from_bytes(content)
    return b"", session.vote(request.alive, request.dropped)


def _unmask(session: SiteSession, notes: Notes, content: bytes) -> tuple[bytes, bytes]:
    request = UnmaskRequest.from_bytes(content)
    _once(session.params, notes, request)
    given, proof = session.unmask(request)
    return pack_bytes(given), proof


_STAGES = {"share": _share, "vote": _vote, "unmask": _unmask}


def _once(terms: Params, notes: Notes, request: UnmaskRequest) -> None:
    """Refuse to help open a second sum of one round over other sites: the difference of two would be a single update.

    A round that is done again after a crash may be opened again over the same sites.
    """
    about = f"{terms.run}|{terms.purpose}|{terms.round}"
    now = f"{about}|{survivors(request.alive, request.dropped).hex()}"
    before = str(notes.get(f"{OPENED}-{terms.purpose}", ""))
    if before.startswith(f"{about}|") and before != now:
        raise SecureAggregationError(
            "second-sum",
            "a sum of this round was opened over other sites. Their difference would open a single update.",
        )
    notes[f"{OPENED}-{terms.purpose}"] = now


def _policy(config: RunConfig) -> SitePolicy:
    secure = config.secure_aggregation
    return SitePolicy(fewest=secure.fewest_sites, colluders=secure.colluders, rings=(secure.ring_bits,))


def _who(config: RunConfig, site: Site, terms: Params) -> tuple[Identity, Roster]:
    """Give the site's identity and roster: a hospital's own files, or those of simulated sites, which are no secret."""
    if site.identity is None:
        keys = {name: simulated(config.digest(), name).public for name in {*terms.sites, site.name}}
        return simulated(config.digest(), site.name), Roster(keys)
    identity, roster = site.identity
    found = Identity.read(identity)
    if found.site != site.name:
        raise ConfigError(f"the identity is of {found.site!r} and the site is {site.name!r}. Make one for this site.")
    return found, Roster.read(roster)
