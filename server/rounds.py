"""The round loop: start or resume, train, combine, judge, record, checkpoint.

One round asks the cohort to train from the global arrays, combines what came back, lets every site judge the result on
its validation images, appends one record to the history and writes a checkpoint. The order makes a crash harmless: a
record without a checkpoint is written again by the repeated round.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from common.arrays import Arrays, model_arrays
from common.attention.base import AttentionModel
from common.attention.prior import pool
from common.attention.schema import schema_of
from common.config import RunConfig
from common.errors import AggregationError, RunFolderError
from common.messages import TOGETHER, EvaluateReply, EvaluateRequest, TrainReply, TrainRequest
from common.metrics import METRICS
from common.tasks.base import Task
from server.averaging import judged_arrays
from server.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from server.exchange import Exchange
from server.health import HealthMonitor
from server.history import POOLED, History, RoundRecord
from server.inspection import sound_health, sound_judgements, sound_signatures, sound_updates
from server.pooled import Pooler
from server.pooled_round import PooledRounds
from server.sampling import draw_cohort
from server.strategies.base import Strategy
from server.weights import factors, weighed

log = logging.getLogger(__name__)
Observer = Callable[[RoundRecord], None]


class StopFlag(Protocol):
    """What tells a run to stop after its round: a threading or multiprocessing event."""

    def is_set(self) -> bool:
        """Tell whether to stop."""
        ...


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it and nothing is lost
    """The run was asked to stop and has checkpointed the round it was in."""


@dataclass(slots=True)
class RoundLoop:
    """Everything one run needs; `run` does the work. `stop` may be set from outside (Ctrl-C)."""

    config: RunConfig
    exchange: Exchange
    strategy: Strategy
    task: Task
    model: AttentionModel
    folder: Path | None
    observe: Observer
    stop: StopFlag = field(default_factory=threading.Event)
    monitor: HealthMonitor = field(default_factory=HealthMonitor)
    sums: PooledRounds = field(init=False)
    personal: tuple[str, ...] = field(init=False)
    """Names of the arrays that each site keeps."""

    def __post_init__(self) -> None:
        self.personal = self.strategy.keeps(self.model)
        pooler = Pooler(self.config, self.exchange, self.task, self.model)
        self.sums = PooledRounds(self.config, pooler, self.strategy)

    def run(self) -> Checkpoint:
        """Train until the last round and give the final state.

        Raises:
            AggregationError: Fewer source sites or usable updates than the quorum.
            RunFolderError: The folder holds another run, or the disk is full.
            Stopped: After the checkpoint of the round in which `stop` was set.
        """
        self._check_cohort()
        images = {name: self.exchange.hellos[name].train_images for name in self.exchange.names("source")}
        self.strategy.meet(images, self.model)
        history = History(self.folder)
        checkpoint = self._begin(history)
        while checkpoint.round < self.config.rounds:
            record = self._round(checkpoint)
            history.append(record)
            if self.folder:
                save_checkpoint(self.folder, checkpoint, self.config.digest())
            self.observe(record)
            if self.stop.is_set() and checkpoint.round < self.config.rounds:
                raise Stopped
        return checkpoint

    def _begin(self, history: History) -> Checkpoint:
        found = load_checkpoint(self.folder, self.config.digest()) if self.folder else None
        if found is None:
            return Checkpoint(round=0, arrays=model_arrays(self.model))
        log.info("resuming after round %d", found.round)
        self.strategy.state = found.state
        records = history.records(up_to=found.round)
        if len(records) != found.round:
            raise RunFolderError(
                f"{self.folder} holds {len(records)} records of the {found.round} rounds of its checkpoint. Put the "
                f"history back, or start anew in another folder with `--out`."
            )
        for record in records:
            for site, values in record.health.items():
                self.monitor.remember(site, values)
            self.observe(record)
        return found

    def _check_cohort(self) -> None:
        """Refuse before any work what could never reach the quorum."""
        sites, quorum = self.exchange.names("source"), self.config.cohort.quorum
        cohort = len(draw_cohort(sites, self.config.cohort.fraction, self.config.seed, 1))
        if not cohort or cohort < quorum:
            raise AggregationError(
                f"a round has a cohort of {cohort} of {len(sites)} source sites and `cohort.quorum` is {quorum}. Let "
                f"more sites take part, or lower the quorum only if the study allows it."
            )

    def _round(self, checkpoint: Checkpoint) -> RoundRecord:
        """Advance the checkpoint by one round, in place, and say what happened."""
        number = checkpoint.round + 1
        last = number == self.config.rounds
        every = self.config.attention.every
        measure = bool(every) and number > 1 and (number - 1) % every == 0
        cohort = draw_cohort(self.exchange.names("source"), self.config.cohort.fraction, self.config.seed, number)
        if self.config.pooled:
            return self.sums.round(checkpoint, cohort)
        request = TrainRequest(
            round=number,
            arrays=checkpoint.arrays,
            mu=self.strategy.mu,
            keep_local=self.personal,
            manner=self.strategy.manner,
            method=self.strategy.method,
            shared=self.strategy.shared(),
            measure=measure,
            prior=checkpoint.prior.arrays() if checkpoint.prior and self.config.guidance.needs_prior else {},
        )
        replies, failures = self.exchange.train(cohort, request)
        updates, refused = sound_updates(replies, checkpoint.arrays, self.strategy)
        failures |= refused
        self._check_quorum(len(updates), failures)
        failures = self._pool(checkpoint, replies) | failures
        factor = self._factors(checkpoint)
        checkpoint.arrays = self.strategy.aggregate(checkpoint.arrays, weighed(updates, factor))
        checkpoint.state = self.strategy.state
        checkpoint.round = number
        judged, unjudged = self._judge(checkpoint, judged_arrays(checkpoint, self.config), measure=bool(every) and last)
        failures = self._pool(checkpoint, judged) | unjudged | failures
        newest: dict[str, TrainReply | EvaluateReply] = {**replies}
        newest |= {name: reply for name, reply in judged.items() if reply.health}
        health, alarms = self._watch(number, newest)
        return RoundRecord(
            round=number,
            cohort=tuple(cohort),
            train_loss={
                item.site: replies[item.site].loss_sum / item.weight
                for item in updates
                if np.isfinite(replies[item.site].loss_sum)
            },
            evaluation=self._metrics(judged),
            failures=failures,
            measured=measure or (bool(every) and last),
            health=health,
            alarms=alarms,
            weights={item.site: round(factor[item.site], 6) for item in updates if item.site in factor},
        )

    def _factors(self, checkpoint: Checkpoint) -> dict[str, float]:
        """Give what attention makes of each source site's weight, from the newest signatures, this round's too."""
        mode = self.config.strategy.attention_weights
        known = {
            name: checkpoint.signatures[name] for name in self.exchange.names("source") if name in checkpoint.signatures
        }
        return factors(known, schema_of(self.model), mode) if mode != "none" and known else {}

    def _check_quorum(self, usable: int, failures: Mapping[str, str]) -> None:
        if usable < self.config.cohort.quorum:
            codes = ", ".join(f"{name}: {code}" for name, code in sorted(failures.items())) or "none answered"
            raise AggregationError(
                f"{usable} usable updates came back and `cohort.quorum` is {self.config.cohort.quorum} ({codes}). "
                f"The rounds before are saved; cure those sites and resume.{_diverged(failures)}"
            )

    def _pool(self, checkpoint: Checkpoint, replies: Mapping[str, TrainReply | EvaluateReply]) -> dict[str, str]:
        """Keep each site's newest signature, give codes for those refused; the prior rests on source sites only."""
        found, codes = sound_signatures(replies, self.model)
        checkpoint.signatures |= found
        source = [found[name] for name in self.exchange.names("source") if name in found]
        if source:
            checkpoint.prior = pool(source)
        return codes

    def _watch(
        self, number: int, replies: Mapping[str, TrainReply | EvaluateReply]
    ) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, str]]]:
        """Judge the attention's health at every site that measured it, and warn where something is past its bound."""
        health: dict[str, dict[str, float]] = {}
        alarms: dict[str, dict[str, str]] = {}
        for site, sums in sound_health(replies, self.model).items():
            found = self.monitor.look(site, sums)
            health[site] = {family: round(item.value, 6) for family, item in found.items()}
            for family, item in found.items():
                if item.alarming:
                    alarms.setdefault(site, {})[family] = item.statistic
                    where = f"{item.statistic} is {item.value:.3g}, bound {item.bound:.3g}"
                    log.warning("round %d, site %s: attention alarm %r: %s", number, site, family, where)
        return health, alarms

    def _judge(
        self, checkpoint: Checkpoint, arrays: Arrays, measure: bool
    ) -> tuple[dict[str, EvaluateReply], dict[str, str]]:
        request = EvaluateRequest(
            round=checkpoint.round,
            arrays=arrays,
            split="val",
            own=bool(self.personal) or self.strategy.manner != TOGETHER,
            measure=measure,
        )
        replies, failures = self.exchange.evaluate(self.exchange.names(), request)
        judged, refused = sound_judgements(replies)
        return judged, failures | refused

    def _metrics(self, judged: dict[str, EvaluateReply]) -> dict[str, dict[str, float]]:
        """Per site, and over the added sums of the source sites."""
        groups = {name: [reply] for name, reply in sorted(judged.items())}
        source = [judged[name] for name in self.exchange.names("source") if name in judged]
        return {name: self._values(replies) for name, replies in [*groups.items(), (POOLED, source)] if replies}

    def _values(self, replies: list[EvaluateReply]) -> dict[str, float]:
        images = sum(reply.images for reply in replies)
        values = {"loss": sum(reply.loss_sum for reply in replies) / images} if images else {}
        for name in self.task.metrics:
            sums = [np.asarray(reply.sums[name], np.float64) for reply in replies if name in reply.sums]
            if sums:
                values[name] = METRICS.load(name)().pooled(np.sum(sums, axis=0))
        return {name: float(value) for name, value in values.items() if np.isfinite(value)}


def _diverged(failures: Mapping[str, str]) -> str:
    if "update-not-finite" not in failures.values():
        return ""
    return " Updates that are not finite mean that training diverged: start anew with a lower `train.learning-rate`."
