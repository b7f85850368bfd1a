"""A site's part in secure sums: its identity, its session between two messages, and what it insists on.

A client's process may end after every message, so the session is sealed under a key of the site's identity and kept in
the notes that Flower carries from one message to the next.
"""

import json
from collections.abc import Iterable, MutableMapping
from dataclasses import fields, replace
from typing import Any

from client.openings import opening
from client.site import Site
from common.config import RunConfig
from common.errors import ConfigError, SecureAggregationError
from common.messages import EvaluateRequest, SumReply, SumRequest, TrainRequest
from common.secagg.identity import Identity, Roster, simulated
from common.secagg.layout import Layout
from common.secagg.masks import Ring
from common.secagg.params import Params, SitePolicy
from common.secagg.parcels import Advert, UnmaskRequest, pack_bytes, unpack_bytes
from common.secagg.site import SiteSession
from common.subject import subject_of

SESSION = "session"
PURPOSES = {"train": TrainRequest, "judge": EvaluateRequest}
Notes = MutableMapping[str, Any]
"""What a client keeps from one message to the next."""


def answer(config: RunConfig, site: Site, notes: Notes, request: SumRequest) -> SumReply:
    """Answer one stage of a secure sum.

    Raises:
        SecureAggregationError: A refusal, by name.
    """
    if request.stage == "advertise":
        terms = read_terms(request.terms)
        _check_about(config, terms)
        policy = policy_of(config, site)
        policy.check(site.name, terms, terms.layout, terms.model)
        session = SiteSession(*_who(config, site, terms), policy, terms)
        content, proof = session.advertise().to_bytes(), b""
    else:
        session = resume(config, site, notes, request.terms)
        if request.stage not in _STAGES:
            raise SecureAggregationError("out-of-order", "a sum has no such stage. Run one version everywhere.")
        content, proof = _STAGES[request.stage](session, site, notes, request.content)
    keep(notes, session)
    return SumReply(site=site.name, content=content, proof=proof)


def masked(
    config: RunConfig,
    site: Site,
    notes: Notes,
    request: TrainRequest | EvaluateRequest,
    layout: Layout,
    pieces: Iterable[Ring],
) -> tuple[Ring, bytes]:
    """Mask a vector in the session of a sum, and tag it.

    Args:
        config: The run's settings.
        site: The site.
        notes: Hold the session.
        request: What this site did, with the sum's terms and the shares from the other sites.
        layout: As this site made it itself.
        pieces: What it contributes, piece by piece.

    Raises:
        SecureAggregationError: The sum is about another round, request or layout, or a refusal of the session.
    """
    session = resume(config, site, notes, request.terms)
    terms = session.params  # whose run and purpose were checked when it began
    if terms.round != request.round or PURPOSES[terms.purpose] is not type(request):
        raise _another(f"the sum is of {terms.purpose!r} in round {terms.round} and the request is not")
    session.policy.check(site.name, terms, layout.digest, subject_of(request))
    vector, tag = session.mask(pieces, unpack_bytes(request.sealed))
    keep(notes, session)
    return vector, tag


def read_terms(text: str) -> Params:
    """Read a sum's terms.

    Raises:
        SecureAggregationError: `malformed`, or terms that protect nobody.
    """
    try:
        body = json.loads(text)
        if set(body) != {item.name for item in fields(Params)} or not all(map(_typed, body.items())):
            raise ValueError
        return Params(**{**body, "sites": tuple(body["sites"])})
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise SecureAggregationError("malformed", "the terms of a sum cannot be read. Run one version.") from None


def _typed(item: tuple[str, Any]) -> bool:
    """By exact type: 1.0 and true equal 1, are hashed alike and written otherwise, and would pass for another round."""
    name, value = item
    if name == "sites":
        return type(value) is list and all(type(site) is str for site in value)
    return type(value) is {each.name: each.type for each in fields(Params)}[name]


def _check_about(config: RunConfig, terms: Params) -> None:
    """Refuse a sum of another run, whose settings this site has not read, or for a purpose that there is not.

    Shares of noise are sized for the run's colluders: with more of them, fewer are certain to add theirs.
    """
    if terms.run != config.digest() or terms.colluders != config.secure_aggregation.colluders:
        raise _another("the sum is of another run, or of other settings than this site was sent")
    if terms.purpose not in PURPOSES:
        raise _another(f"sums are for {' and '.join(PURPOSES)}")


def _another(found: str) -> SecureAggregationError:
    return SecureAggregationError(
        "another-sum", f"this site takes no part: {found}. Begin the round anew; the server must ask all sites alike."
    )


def resume(config: RunConfig, site: Site, notes: Notes, terms: str) -> SiteSession:
    """Take up the session of a sum where its last message left it.

    Raises:
        SecureAggregationError: `out-of-order`: there is none, or one of another sum.
    """
    if SESSION not in notes:
        raise SecureAggregationError("out-of-order", "no sum has begun at this site. Begin the round anew.")
    wanted = read_terms(terms)
    session = SiteSession.restored(notes[SESSION], *_who(config, site, wanted), policy_of(config, site))
    if session.params != wanted:
        raise SecureAggregationError("out-of-order", "another sum has begun at this site. Begin the round anew.")
    return session


def keep(notes: Notes, session: SiteSession) -> None:
    """Seal the session into the notes."""
    notes[SESSION] = session.sealed()


def _share(session: SiteSession, site: Site, notes: Notes, content: bytes) -> tuple[bytes, bytes]:
    adverts = {name: Advert.from_bytes(each) for name, each in unpack_bytes(content).items()}
    return pack_bytes(session.share(adverts)), b""


def _vote(session: SiteSession, site: Site, notes: Notes, content: bytes) -> tuple[bytes, bytes]:
    request = UnmaskRequest.from_bytes(content)
    return b"", session.vote(request.alive, request.dropped)


def _unmask(session: SiteSession, site: Site, notes: Notes, content: bytes) -> tuple[bytes, bytes]:
    request = UnmaskRequest.from_bytes(content)
    with opening(notes, site.store if site.identity else None, session.params, request.alive):
        given, proof = session.unmask(request)
    return pack_bytes(given), proof


_STAGES = {"share": _share, "vote": _vote, "unmask": _unmask}


def policy_of(config: RunConfig, site: Site) -> SitePolicy:
    """Give the stricter of what the site insists on and what the run promises in its settings."""
    secure, own = config.secure_aggregation, site.insists
    return replace(
        own,
        fewest=max(own.fewest, secure.fewest_sites),
        colluders=max(own.colluders, secure.colluders),
        rings=tuple(bits for bits in own.rings if bits == secure.ring_bits),
        signed=own.signed or secure.consistency == "signed",
    )


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
