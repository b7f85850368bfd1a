"""Sending one request to many sites over Flower's Grid, and taking the replies apart."""

import logging
import re
import time
from collections.abc import Mapping
from typing import TypeVar

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from common.errors import AggregationError, ConsiliumError, ProtocolError
from common.messages import (
    DistanceReply,
    DistanceRequest,
    EvaluateReply,
    EvaluateRequest,
    Hello,
    HelloRequest,
    PooledReply,
    SumReply,
    SumRequest,
    TrainReply,
    TrainRequest,
    pack,
    unpack,
)

log = logging.getLogger(__name__)
R = TypeVar("R", Hello, TrainReply, EvaluateReply, PooledReply, SumReply, DistanceReply)
Extras = Mapping[str, Mapping[str, str | bytes]]
"""By site, what changes in a request that is otherwise the same for all."""
LOOK_SECONDS, SETTLE_SECONDS = 0.1, 2.0


class Exchange:
    """The sites of a run, by name, behind one Grid. Every wait is bounded by `timeout` seconds."""

    def __init__(self, grid: Grid, timeout: float) -> None:
        self._grid = grid
        self._timeout = timeout
        self.hellos: dict[str, Hello] = {}
        self._nodes: dict[str, int] = {}

    def meet(self, config_digest: str, sites: int = 1) -> None:
        """Wait for the nodes of `sites` sites (0: until no more come online), then ask every node who it is.

        Raises:
            AggregationError: Too few nodes came online, none answered, or a node refused; the message gives the codes.
            ProtocolError: Two nodes give the same site name.
        """
        nodes = {str(node): node for node in self._online(sites)}
        replies, failures = self._ask(nodes, MessageType.QUERY, HelloRequest(config_digest=config_digest), Hello)
        if failures or not replies:
            codes = ", ".join(sorted(set(failures.values()))) or "no node is online"
            raise AggregationError(
                f"{len(failures)} of {len(nodes)} sites cannot take part: {codes}. The reason stands in each site's "
                f"own log; `consilium-site check` there says what to do."
            )
        for node, hello in replies.items():
            if hello.site in self.hellos:
                raise ProtocolError(f"two nodes call themselves {hello.site!r}. Give every site a name of its own.")
            self.hellos[hello.site] = hello
            self._nodes[hello.site] = nodes[node]

    def _online(self, sites: int) -> list[int]:
        began = changed = time.monotonic()
        nodes = list(self._grid.get_node_ids())
        while len(nodes) < max(1, sites) or (not sites and time.monotonic() - changed < SETTLE_SECONDS):
            if time.monotonic() - began > self._timeout:
                raise AggregationError(
                    f"{len(nodes)} of {sites or 'the'} sites came online within {self._timeout:g} seconds. Start the "
                    f"missing ones, or set `cohort.timeout-seconds` higher."
                )
            time.sleep(LOOK_SECONDS)
            before, nodes = nodes, list(self._grid.get_node_ids())
            if len(nodes) != len(before):
                log.info("%d of %s sites are online", len(nodes), sites or "the")
                changed = time.monotonic()
        return nodes

    def names(self, role: str | None = None) -> list[str]:
        """Give the sites, all or of one role, sorted by name."""
        return sorted(name for name, hello in self.hellos.items() if role in (None, hello.role))

    def train(self, sites: list[str], request: TrainRequest) -> tuple[dict[str, TrainReply], dict[str, str]]:
        """Let sites train; give replies and failure codes by site."""
        return self._ask(self._some(sites), MessageType.TRAIN, request, TrainReply)

    def evaluate(self, sites: list[str], request: EvaluateRequest) -> tuple[dict[str, EvaluateReply], dict[str, str]]:
        """Let sites judge; give replies and failure codes by site."""
        return self._ask(self._some(sites), MessageType.EVALUATE, request, EvaluateReply)

    def contribute(
        self, sites: list[str], request: TrainRequest | EvaluateRequest, extras: Extras | None = None
    ) -> tuple[dict[str, PooledReply], dict[str, str]]:
        """Let sites train or judge for a sum; `extras` holds what each is sent beside the request."""
        kind = MessageType.TRAIN if isinstance(request, TrainRequest) else MessageType.EVALUATE
        return self._ask(self._some(sites), kind, request, PooledReply, extras)

    def sum_stage(
        self, contents: Mapping[str, bytes], stage: str, terms: Mapping[str, str]
    ) -> tuple[dict[str, SumReply], dict[str, str]]:
        """Play one stage of secure sums: to each site its content, and the terms of its sum."""
        extras: Extras = {site: {"content": content, "terms": terms[site]} for site, content in contents.items()}
        request = SumRequest(stage=stage, terms="")
        return self._ask(self._some(sorted(contents)), f"{MessageType.QUERY}.secure", request, SumReply, extras)

    def distances(self, sites: list[str], request: DistanceRequest) -> tuple[dict[str, DistanceReply], dict[str, str]]:
        """Let sites say how far they lie from the others."""
        return self._ask(self._some(sites), f"{MessageType.QUERY}.distance", request, DistanceReply)

    def _some(self, sites: list[str]) -> dict[str, int]:
        return {site: self._nodes[site] for site in sites}

    def _ask(
        self,
        nodes: Mapping[str, int],
        kind: str,
        request: HelloRequest | TrainRequest | EvaluateRequest | SumRequest | DistanceRequest,
        reply: type[R],
        extras: Extras | None = None,
    ) -> tuple[dict[str, R], dict[str, str]]:
        content = pack(request)
        messages = [
            Message(_with(content, (extras or {}).get(name)), dst_node_id=node, message_type=kind)
            for name, node in nodes.items()
        ]
        names = {node: name for name, node in nodes.items()}
        replies: dict[str, R] = {}
        failures: dict[str, str] = {}
        for answer in self._grid.send_and_receive(messages, timeout=self._timeout):
            name = names.get(answer.metadata.src_node_id)
            if name is None:
                continue
            try:
                if answer.has_error():
                    failures[name] = _code(answer)
                else:
                    replies[name] = _from(name, unpack(answer.content, reply))
            except ConsiliumError as error:
                failures[name] = error.code
        failures |= {name: "no-reply" for name in nodes if name not in replies and name not in failures}
        for name, code in sorted(failures.items()):
            log.warning("site %s failed: %s", name, code)
        # In the order of names, not of arrival: sums of floats must not depend on who was faster.
        return dict(sorted(replies.items())), failures


def _with(content: RecordDict, extra: Mapping[str, str | bytes] | None) -> RecordDict:
    """Change some scalars of a packed request; the arrays are shared with the others', not copied."""
    if not extra:
        return content
    return RecordDict({**content, "body": ConfigRecord({**content.config_records["body"], **extra})})


def _from(name: str, body: R) -> R:
    """Refuse a reply in another site's name; before the hello, a node has no name."""
    if not isinstance(body, Hello) and body.site != name:
        raise ProtocolError(f"the node of site {name!r} answers as {body.site!r}. Restart that site.")
    return body


def _code(answer: Message) -> str:
    """Take a site's own code; anything else (Flower's texts) is reduced to one word, for texts can carry patients."""
    found = re.fullmatch(r"consilium:([a-z-]{1,40})", answer.error.reason or "")
    return found.group(1) if found else "unreachable"
