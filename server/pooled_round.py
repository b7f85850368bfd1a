"""One round where the server sees sums only: what it asks, what it makes of the sum, and what it can say of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.arrays import Arrays
from common.attention.prior import Prior
from common.attention.schema import schema_of
from common.attention.signature import signatures
from common.config import RunConfig
from common.errors import AggregationError, BudgetExhaustedError
from common.items import item_shape, noise
from common.messages import DistanceRequest, EvaluateRequest, TrainRequest
from common.privacy.distance_release import DistanceRelease
from common.privacy.plan import distance_released, measured_rounds
from common.seeds import torch_generator
from server.averaging import judged_arrays
from server.checkpoint import Checkpoint
from server.history import POOLED, RoundRecord
from server.pooled import Pooler
from server.strategies.base import Strategy, Weighted

PUBLIC_IMAGES = 16
EXHAUSTED = "budget-exhausted"


@dataclass(slots=True)
class PooledRounds:
    """Runs rounds of sums."""

    config: RunConfig
    pooler: Pooler
    strategy: Strategy

    def round(self, checkpoint: Checkpoint, cohort: list[str]) -> RoundRecord:
        """Advance the checkpoint by one round, in place, and say what happened.

        Raises:
            BudgetExhaustedError: Sites have no budget left for the round; the rounds before are saved.
            AggregationError: No sum, a sum of fewer sites than the quorum, or one that breaks its bound.
        """
        config, number = self.config, checkpoint.round + 1
        self.pooler.prepare(cohort)
        request = TrainRequest(
            round=number,
            arrays=checkpoint.arrays,
            mu=self.strategy.mu,
            measure=number in measured_rounds(config),
            noise_multiplier=self.pooler.noise_multiplier,
            reference=self._reference(checkpoint),
        )
        try:
            brought, failures = self.pooler.train(cohort, request)
        except AggregationError as error:
            if EXHAUSTED in str(error):
                raise self._exhausted(number) from None
            raise
        if len(brought.sites) < config.cohort.quorum:
            raise AggregationError(
                f"the sum of round {number} is of {len(brought.sites)} sites and `cohort.quorum` is "
                f"{config.cohort.quorum}. The rounds before are saved; cure those sites and resume."
            )
        whole = Weighted(site=POOLED, update=brought.update, weight=1.0)
        checkpoint.arrays = self.strategy.aggregate(checkpoint.arrays, [whole])
        checkpoint.state, checkpoint.round = self.strategy.state, number
        checkpoint.prior = brought.prior or checkpoint.prior
        last = number == config.rounds and config.attention.every > 0
        arrays = judged_arrays(checkpoint, config)
        judgement = EvaluateRequest(
            round=number,
            arrays=arrays,
            split="val",
            measure=last,
            noise_multiplier=self.pooler.noise_multiplier,
            reference=self._reference(checkpoint),
        )
        judged, unjudged = self.pooler.judge(cohort, judgement)
        checkpoint.prior = judged.prior or checkpoint.prior
        distances, silent = self._distances(arrays, judged.prior, len(judged.sites), cohort)
        return RoundRecord(
            round=number,
            cohort=tuple(cohort),
            distances=distances,
            vectors=dict(judged.shown),
            train_loss={} if brought.loss is None else {POOLED: brought.loss},
            evaluation={POOLED: dict(judged.metrics)} if judged.metrics else {},
            failures={**silent, **unjudged, **failures},
            measured=brought.prior is not None or judged.prior is not None,
        )

    def _distances(
        self, arrays: Arrays, prior: Prior | None, sites: int, cohort: list[str]
    ) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Ask every site how far it lies from the last prior, where it was just pooled under the same arrays."""
        if not distance_released(self.config) or prior is None:
            return {}, {}
        noise = self.pooler.signatures.prior_noise(prior, sites, len(cohort))
        request = DistanceRequest(arrays=arrays, prior=prior.arrays(), prior_noise=noise)
        replies, failures = self.pooler.exchange.distances(cohort, request)
        floor = DistanceRelease.planned(prior, noise, self.config.privacy).floor if replies else 0.0
        return {site: [reply.distance, reply.noise, floor] for site, reply in replies.items()}, failures

    def _reference(self, checkpoint: Checkpoint) -> Arrays:
        """Give the public centre of signatures: the last prior, or how the model looks at images of noise."""
        model = self.pooler.model
        if not self.config.privacy.on or not model.attention_sites:
            return {}
        if checkpoint.prior is not None:
            return {"reference": checkpoint.prior.mean}
        return {"reference": self._of_noise()}

    def _of_noise(self) -> NDArray[np.float64]:
        model = self.pooler.model
        hello = next(iter(self.pooler.exchange.hellos.values()))
        shape = item_shape(hello.channels, hello.image_size, self.config.data.max_instances)
        public = noise((PUBLIC_IMAGES, *shape), torch_generator(self.config.seed, "public"))
        rows = signatures(model, public, schema_of(model))
        return np.asarray(rows.numpy().mean(axis=0))

    def _exhausted(self, number: int) -> BudgetExhaustedError:
        return BudgetExhaustedError(
            f"sites have no privacy budget left for round {number}. The model of round {number - 1} is saved and "
            f"stands; end the study here, or let the sites decide on larger budgets and resume."
        )
