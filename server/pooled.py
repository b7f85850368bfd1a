"""A round of sums: what sites contribute is added, in the clear or securely, and only the sum is looked at."""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.arrays import Arrays, is_float
from common.attention.base import AttentionModel
from common.attention.prior import Prior
from common.attention.schema import schema_of
from common.config import RunConfig
from common.contribution import (
    LOSS,
    METRICS,
    RELEASE,
    UPDATE,
    WEIGHT,
    class_count,
    grids,
    judging_segments,
    lengths,
    reach,
    training_segments,
    unflatten,
)
from common.errors import AggregationError
from common.messages import EvaluateRequest, PooledReply, TrainRequest
from common.metrics.released import read_release
from common.privacy.plan import Plan
from common.randomness import SecureRandom
from common.secagg.groups import combine, draw_groups
from common.secagg.layout import Layout
from common.subject import subject_of
from common.tasks.base import Task
from server.exchange import Exchange
from server.released_signatures import ReleasedSignatures
from server.secure import SecureSums, Sums

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
SLACK = 1e-3
"""Relative rounding allowed in a norm."""


@dataclass(frozen=True, slots=True)
class Brought:
    """What the sum of a round brought: the mean update, whose it is, and what else was in it."""

    update: Arrays
    sites: tuple[str, ...]
    prior: Prior | None = None
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    shown: Mapping[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Collected:
    """The opened sums, each with its sites; failures by code; what single sites sent, where that is seen."""

    sums: Sums
    failures: dict[str, str]
    single: Mapping[str, Arrays] = field(default_factory=dict)


@dataclass(slots=True)
class Pooler:
    """Asks sites for contributions and reads their sums."""

    config: RunConfig
    exchange: Exchange
    task: Task
    model: AttentionModel
    noise_multiplier: float = 0.0
    random: SecureRandom = field(default_factory=SecureRandom)

    def prepare(self, cohort: list[str]) -> None:
        """Find the noise of the whole run, once, from its settings.

        Raises:
            PrivacyError: What is released with fixed noise costs more than the run's epsilon.
        """
        if self.config.privacy.on and not self.noise_multiplier:
            found = grids(self.config, self._layout(TrainRequest(round=1, arrays=self._arrays()), len(cohort)))
            plan = Plan(self.config, "split", found.get(UPDATE), found.get(RELEASE))
            self.noise_multiplier = plan.noise_multiplier
            log.info(
                "noise multiplier %.4g keeps the run to epsilon %g", plan.noise_multiplier, self.config.privacy.epsilon
            )

    def train(self, cohort: list[str], request: TrainRequest) -> tuple[Brought, dict[str, str]]:
        """Let the cohort train and give what the sum brought, with failures by code.

        Raises:
            AggregationError: No sum could be opened, or its norm is more than its sites' bounds allow.
        """
        found = self._collect(cohort, request, "train")
        if not found.sums:
            codes = ", ".join(f"{site}: {code}" for site, code in sorted(found.failures.items())) or "none answered"
            raise AggregationError(
                f"no sum of round {request.round} could be opened ({codes}). The rounds before are saved; cure those "
                f"sites and resume."
            )
        means = np.stack([self._mean(each, alive, request) for each, alive in found.sums])
        update = combine(means, self.config.secure_aggregation.combine)
        whole, sites = _added(found.sums)
        loss = float(whole[LOSS][0] / whole[WEIGHT][0]) if LOSS in whole else None
        return Brought(
            unflatten(update, request.arrays), sites, self.signatures.prior(whole, request), loss
        ), found.failures

    def judge(self, sites: list[str], request: EvaluateRequest) -> tuple[Brought, dict[str, str]]:
        """Let sites judge, where the settings release something after this round."""
        if not self._layout(request, len(sites)).segments:
            return Brought({}, ()), {}
        found = self._collect(sites, request, "judge")
        if not found.sums:
            return Brought({}, ()), found.failures
        whole, alive = _added(found.sums)
        metrics = read_release(self.config.task.name, whole[METRICS]) if METRICS in whole else {}
        shown = self.signatures.showable(found.single, request)
        return Brought({}, alive, self.signatures.prior(whole, request), metrics=metrics, shown=shown), found.failures

    def _collect(self, sites: list[str], request: TrainRequest | EvaluateRequest, purpose: str) -> Collected:
        secure = self.config.secure_aggregation
        if secure.enabled:
            groups = draw_groups(sites, secure.groups, secure.fewest_sites)
            layouts = {len(group): self._layout(request, len(group)) for group in groups}
            sums = SecureSums(self.config, self.exchange, layouts, groups, subject_of(request))
            opened = sums.run(request, purpose, secrets.randbelow(2**31))
            whole_cohort = self._layout(request, len(sites))
            return Collected(
                [(self._noised(found, request, whole_cohort), alive) for found, alive in opened], sums.failures
            )
        layout = self._layout(request, len(sites))
        replies, failures = self.exchange.contribute(sites, request)
        clear, refused = _fitting(replies, layout)
        if not clear:
            return Collected([], failures | refused)
        whole = {
            segment.name: np.sum([np.asarray(each[segment.name], np.float64) for each in clear.values()], axis=0)
            for segment in layout.segments
        }
        return Collected([(self._noised(whole, request, layout), tuple(clear))], failures | refused, clear)

    def _noised(
        self, whole: dict[str, Floats], request: TrainRequest | EvaluateRequest, layout: Layout
    ) -> dict[str, Floats]:
        """Add the server's own noise where it is the one to add it, to a sum that was laid out so."""
        privacy = self.config.privacy
        if not privacy.on or privacy.placement != "central":
            return whole
        of = {
            UPDATE: request.noise_multiplier,
            RELEASE: privacy.signature_noise_multiplier,
            METRICS: privacy.metrics_noise_multiplier,
        }
        far = reach(self.config, layout)
        return {name: sums + of[name] * far[name] * self.random.normal(len(sums)) for name, sums in whole.items()}

    def _mean(self, whole: Mapping[str, Floats], alive: tuple[str, ...], request: TrainRequest) -> Floats:
        """Give the mean update of a sum, tested against the bound that every site keeps."""
        privacy, bound = self.config.privacy, self.config.secure_aggregation.update_bound
        total = whole[UPDATE]
        if privacy.on and privacy.placement != "site":
            expected = privacy.sampling_probability * privacy.fewest_patients * len(alive)
            return -self.config.train.learning_rate * total / expected
        weight = float(whole[WEIGHT][0]) if WEIGHT in whole else float(len(alive))
        if weight <= 0:
            raise AggregationError("the sites' hidden counts add up to none. Let sites with images take part.")
        mean = total / weight
        if not np.isfinite(mean).all() or np.linalg.norm(mean) > bound * (1 + SLACK):
            raise AggregationError(
                f"the mean update has norm {np.linalg.norm(mean):.3g} and no site may send more than {bound:g}: a "
                f"site does not keep the bound. Find out which; secure aggregation hides it here."
            )
        return mean

    @property
    def signatures(self) -> ReleasedSignatures:
        """What reads the signatures in sums."""
        schema = schema_of(self.model).id if self.model.attention_sites else ""
        return ReleasedSignatures(self.config, class_count(self.config, self.task), schema)

    def _layout(self, request: TrainRequest | EvaluateRequest, sites: int) -> Layout:
        length = schema_of(self.model).length if self.model.attention_sites else 0
        of = lengths(self.config, request.arrays, length, self.task)
        secure = self.config.secure_aggregation
        if isinstance(request, TrainRequest):
            segments = training_segments(self.config, request.round, of, request.noise_multiplier)
        else:
            segments = judging_segments(self.config, request.round, of)
        return Layout(segments, secure.ring_bits, sites if secure.enabled else 2)

    def _arrays(self) -> Arrays:
        return {name: tensor.numpy(force=True) for name, tensor in self.model.state_dict().items()}


def _added(sums: Sums) -> tuple[dict[str, Floats], tuple[str, ...]]:
    names = sums[0][0]
    whole = {name: np.sum([found[name] for found, _ in sums], axis=0) for name in names}
    return whole, tuple(sorted(site for _, alive in sums for site in alive))


def _fitting(replies: Mapping[str, PooledReply], layout: Layout) -> tuple[dict[str, Arrays], dict[str, str]]:
    """Keep the clear contributions that have the layout's segments, finite and in their bounds."""
    kept, refused = {}, {}
    for site, reply in sorted(replies.items()):
        fits = {name: len(array) for name, array in reply.segments.items() if array.ndim == 1} == {
            segment.name: segment.length for segment in layout.segments
        }
        if not fits:
            refused[site] = "segments"
        elif not all(bool(np.isfinite(array).all()) for array in reply.segments.values() if is_float(array)):
            refused[site] = "not-finite"
        else:
            kept[site] = reply.segments
    return kept, refused
