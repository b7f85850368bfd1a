"""Secure sums over the exchange: one for each group of the cohort, all stages of all groups side by side."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.config import RunConfig
from common.errors import SecureAggregationError
from common.messages import EvaluateRequest, SumReply, TrainRequest
from common.secagg.identity import Roster, simulated
from common.secagg.keys import fresh_secret, public_of
from common.secagg.layout import Layout
from common.secagg.params import Params
from common.secagg.parcels import Advert, pack_bytes, unpack_bytes
from common.secagg.server import ServerSession
from server.exchange import Exchange

log = logging.getLogger(__name__)
T = TypeVar("T")
Sessions = Mapping[str, ServerSession]
Sums = list[tuple[dict[str, NDArray[np.float64]], tuple[str, ...]]]


@dataclass(slots=True)
class SecureSums:
    """The sums of one round: every group has its own session and is opened by itself, or not at all."""

    config: RunConfig
    exchange: Exchange
    layouts: Mapping[int, Layout]
    groups: list[tuple[str, ...]]
    model: str
    failures: dict[str, str] = field(default_factory=dict)

    def run(self, request: TrainRequest | EvaluateRequest, purpose: str, attempt: int) -> Sums:
        """Give each opened group's segments and whose they are; sites that failed are in `failures`, by code."""
        sessions = [self._session(group, request.round, purpose, attempt) for group in self.groups]
        of = {site: session for session in sessions for site in session.params.sites}
        self._advertise(of)
        self._share(of)
        self._mask(of, request)
        if self.config.secure_aggregation.consistency == "signed":
            self._ask_survivors("vote", of)
        self._ask_survivors("unmask", of)
        opened = [found for session in sessions if (found := self._open(session))]
        for session in sessions:
            self.failures = {**session.refused, **self.failures}
        return opened

    def _session(self, group: tuple[str, ...], round_: int, purpose: str, attempt: int) -> ServerSession:
        secure, layout = self.config.secure_aggregation, self.layouts[len(group)]
        secret = fresh_secret()
        terms = Params(
            run=self.config.digest(),
            round=round_,
            purpose=purpose,
            attempt=attempt,
            sites=group,
            fewest=secure.fewest_sites,
            colluders=secure.colluders,
            ring_bits=secure.ring_bits,
            length=layout.length,
            layout=layout.digest,
            model=self.model,
            server_key=public_of(secret).hex(),
            signed=secure.consistency == "signed",
        )
        return ServerSession(terms, roster_of(self.config, group), secret)

    def _advertise(self, of: Sessions) -> None:
        self._stage("advertise", dict.fromkeys(of, b""), of)

    def _share(self, of: Sessions) -> None:
        contents: dict[str, bytes] = {}
        for session in set_of(of):
            adverts = self._enough(session.adverts) or {}
            packed = pack_bytes({site: advert.to_bytes() for site, advert in adverts.items()})
            contents |= dict.fromkeys(adverts, packed)
        self._stage("share", contents, of)

    def _mask(self, of: Sessions, request: TrainRequest | EvaluateRequest) -> None:
        """Let the sites do their work; each gets its shares with the request, and the terms of its own sum."""
        found: dict[str, dict[str, bytes]] = {}
        for session in set_of(of):
            found |= self._enough(session.sealed_for) or {}
        extras: dict[str, dict[str, str | bytes]] = {
            site: {"sealed": pack_bytes(each), "terms": terms_of(of[site].params)} for site, each in found.items()
        }
        replies, failures = self.exchange.contribute(sorted(found), request, extras)
        self._failed(failures)
        for site, reply in replies.items():
            of[site].take_masked(site, reply.segments.get("masked", np.zeros(0, np.uint32)), reply.proof)

    def _ask_survivors(self, stage: str, of: Sessions) -> None:
        """Play the stages whose question is who lives: voting and unmasking."""
        contents: dict[str, bytes] = {}
        for session in set_of(of):
            request = self._enough(session.request)
            if request is not None:
                contents |= dict.fromkeys(request.alive, request.to_bytes())
        self._stage(stage, contents, of)

    def _stage(self, stage: str, contents: Mapping[str, bytes], of: Sessions) -> None:
        terms = {site: terms_of(of[site].params) for site in contents}
        replies, failures = self.exchange.sum_stage(contents, stage, terms)
        self._failed(failures)
        for site, reply in replies.items():
            try:
                TAKE[stage](of[site], site, reply)
            except SecureAggregationError as error:
                self._failed({site: error.refusal})

    def _failed(self, codes: Mapping[str, str]) -> None:
        """Note failures. A site's first one stands: one that gave no vote must refuse to unmask as well."""
        self.failures = {**codes, **self.failures}

    def _open(self, session: ServerSession) -> tuple[dict[str, NDArray[np.float64]], tuple[str, ...]] | None:
        found = self._enough(session.open)
        return (self.layouts[len(session.params.sites)].decode(found[0]), found[1]) if found else None

    @staticmethod
    def _enough(step: Callable[[], T]) -> T | None:
        """Go on with a group, or leave it out when too few of it are left."""
        try:
            return step()
        except SecureAggregationError as error:
            log.warning("a group's sum is not opened: %s", error.refusal)
            return None


def _advert(session: ServerSession, site: str, reply: SumReply) -> None:
    session.take_advert(site, Advert.from_bytes(reply.content))


def _shares(session: ServerSession, site: str, reply: SumReply) -> None:
    session.take_shares(site, unpack_bytes(reply.content))


def _vote(session: ServerSession, site: str, reply: SumReply) -> None:
    session.take_vote(site, reply.proof)


def _opened(session: ServerSession, site: str, reply: SumReply) -> None:
    session.take_unmasked(site, unpack_bytes(reply.content), reply.proof)


TAKE = {"advertise": _advert, "share": _shares, "vote": _vote, "unmask": _opened}


def set_of(of: Sessions) -> list[ServerSession]:
    """Give each session once, in the order of their first sites."""
    return list({id(session): session for _, session in sorted(of.items())}.values())


def terms_of(params: Params) -> str:
    """Write a sum's terms as JSON."""
    return json.dumps(asdict(params), sort_keys=True)


def roster_of(config: RunConfig, sites: tuple[str, ...]) -> Roster:
    """Give the sites' public keys: from the server's file, or those of simulated sites."""
    if config.secure_aggregation.roster:
        return Roster.read(Path(config.secure_aggregation.roster))
    return Roster({site: simulated(config.digest(), site).public for site in sites})
