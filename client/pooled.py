"""What a site sends where only sums are wanted: an update, a signature and metrics, noised and laid out for adding."""

from dataclasses import dataclass

import numpy as np

from client.charge import charged
from client.evaluation import predict
from client.extras import Extras
from client.health import groups
from client.private.base import learning
from client.private.training import PrivateTraining, clipped_sum, refuse_unprivate, train_privately
from client.secure import Notes, masked, read_terms
from client.signature import patient_means
from client.site import Site
from client.training import train as train_locally
from common.arrays import Arrays, model_arrays, update_between
from common.attention.base import AttentionModel
from common.attention.schema import schema_of
from common.config import RunConfig
from common.contribution import (
    LARGEST_LOSS,
    LOSS,
    METRICS,
    PATIENTS,
    RELEASE,
    SQUARES,
    TOTAL,
    UPDATE,
    WEIGHT,
    Lengths,
    bounded,
    class_count,
    flatten,
    grids,
    judging_segments,
    lengths,
    saturate,
    training_segments,
)
from common.data.base import Dataset
from common.errors import ProtocolError
from common.messages import EvaluateRequest, PooledReply, TrainRequest
from common.metrics.released import released_rows
from common.privacy.plan import Plan
from common.privacy.signature import routed, sensitivity
from common.randomness import SecureRandom
from common.secagg.layout import Layout, Segment
from common.seeds import derive

Request = TrainRequest | EvaluateRequest


@dataclass(frozen=True, slots=True)
class Contributor:
    """One site in one round of sums."""

    config: RunConfig
    site: Site
    notes: Notes
    model: AttentionModel
    noise_multiplier: float
    random: SecureRandom

    def training(self, request: TrainRequest) -> Arrays:
        """Train a round and give its segments, noised where the site adds the noise."""
        config = self.config
        signature = self._signature(request) if request.measure else {}  # before the weights move
        if not config.privacy.on:
            seed = derive(config.seed, "site", self.site.name, "round", request.round)
            return {**self._plain(request, seed), **signature}
        refuse_unprivate(max(config.guidance.weights().values()) > 0)
        settings = PrivateTraining(config.train, config.privacy, self.noise_multiplier, request.mu, self.random)
        task, data = self.site.task, self.site.data.train
        if config.privacy.placement == "site":
            train_privately(self.model, task, data, settings)
            update = flatten(update_between(model_arrays(self.model), request.arrays))
            return {UPDATE: bounded(update, config.secure_aggregation.update_bound), **signature}
        self.model.train()
        total, _ = clipped_sum(self.model, task, data, settings)
        names = list(learning(self.model))
        found = {name: each.cpu().numpy() for name, each in zip(names, total, strict=True)}
        return {
            UPDATE: flatten({name: found.get(name, 0 * array) for name, array in request.arrays.items()}),
            **signature,
        }

    def judging(self, request: EvaluateRequest, metrics: bool) -> Arrays:
        """Judge the global arrays on validation images and give the segments."""
        privacy, found = self.config.privacy, {}
        if metrics:
            predictions = predict([self.model], self.site.task, self.site.data.val, settle=privacy.on)
            sums = released_rows(predictions).sum(axis=0)
            if privacy.on and privacy.placement == "site":
                sums = sums + privacy.metrics_noise_multiplier * self.random.normal(len(sums))
            found[METRICS] = sums
        return {**found, **(self._signature(request) if request.measure else {})}

    def reply(self, request: Request, segments: Arrays, layout: Layout) -> PooledReply:
        """Put the segments on the wire, in the clear, or masked in the sum whose terms came.

        Raises:
            ProtocolError: The segments are not those that were charged for.
        """
        if set(segments) != {segment.name for segment in layout.segments}:
            raise ProtocolError("the server asks for more, or less, than the run's settings release after this round.")
        if self.config.privacy.on:
            saturate(segments, layout)
        if not request.terms:
            return PooledReply(site=self.site.name, segments=segments)
        shares = grids(self.config, layout)
        noise = {
            name: grid.share(self.config.privacy.mechanism, self._noise_of(name), self.random)
            for name, grid in shares.items()
        }
        pieces = layout.pieces(segments, self.random, noise)
        vector, proof = masked(self.config, self.site, self.notes, request, layout, pieces)
        return PooledReply(site=self.site.name, segments={"masked": vector}, proof=proof)

    def _noise_of(self, name: str) -> float:
        privacy = self.config.privacy
        of = {RELEASE: privacy.signature_noise_multiplier, METRICS: privacy.metrics_noise_multiplier}
        return of.get(name, self.noise_multiplier)

    def _plain(self, request: TrainRequest, seed: int) -> Arrays:
        """Train without privacy: the update times a hidden count of images, the count, and the loss."""
        secure = self.config.secure_aggregation
        extras = Extras(request.mu)
        trained = train_locally(self.model, self.site.task, self.site.data.train, self.config.train, seed, extras)
        update = bounded(flatten(update_between(model_arrays(self.model), request.arrays)), secure.update_bound)
        weight = min(trained.images, secure.most_images)
        loss = min(trained.loss_sum / trained.images, LARGEST_LOSS) * weight
        return {UPDATE: update * weight, WEIGHT: np.array([weight], np.int64), LOSS: np.array([loss])}

    def _signature(self, request: Request) -> Arrays:
        """Measure the global arrays on training patients: the noisy release under privacy, sums without."""
        if not self.model.attention_sites:
            return {}
        config, data = self.config, self.site.data.train
        most = config.attention.patients if not config.privacy.on else len(data)
        seed = derive(config.seed, "signature", self.site.name)
        meter = patient_means(self.model, data, config.attention.images_per_patient, most, seed, config.privacy.on)
        if not config.privacy.on:
            sums = meter.finish()
            return {TOTAL: sums.total, SQUARES: sums.squares, PATIENTS: np.array([sums.patients], np.int64)}
        return {RELEASE: self._release(meter.means(), data, request)}

    def _release(self, means: dict[str, np.ndarray], data: Dataset, request: Request) -> np.ndarray:
        privacy = self.config.privacy
        labels, count = groups(data, len(data.classes))[0], class_count(self.config, self.site.task)
        classes = np.array([_class_of(labels[data.patients == patient]) for patient in means], np.int64)
        rows = np.array(list(means.values())).reshape(len(means), -1)
        total = routed(rows, classes, count, request.reference["reference"], privacy.signature_clip)
        if privacy.placement == "site":
            spread = privacy.signature_noise_multiplier * sensitivity(privacy.signature_clip)
            total = total + spread * self.random.normal(len(total))
        return total


def train_pooled(
    config: RunConfig, site: Site, notes: Notes, model: AttentionModel, request: TrainRequest
) -> PooledReply:
    """Train where only sums are wanted: authorised, trained, recorded, given.

    Raises:
        BudgetExhaustedError: The round would cost more than the site allows; nothing was computed.
    """
    layout = layout_of(config, model, site, request)
    plan = plan_of(config, site, layout, request)
    with charged(config, site, plan.of_training(request.round), plan.ahead(request.round, judged=False)) as charge:
        contributor = Contributor(config, site, notes, model, plan.noise_multiplier, SecureRandom())
        reply = contributor.reply(request, contributor.training(request), layout)
        charge.leave(reply.segments)
    return reply


def judge_pooled(
    config: RunConfig, site: Site, notes: Notes, model: AttentionModel, request: EvaluateRequest
) -> PooledReply:
    """Judge where only sums are wanted.

    Raises:
        BudgetExhaustedError: As `train_pooled`.
        ProtocolError: The settings release nothing after this round.
    """
    layout = layout_of(config, model, site, request)
    plan = plan_of(config, site, layout, request)
    names = {segment.name for segment in layout.segments}
    if not names:
        raise ProtocolError(f"nothing is to be judged after round {request.round}. Ask for what the settings release.")
    with charged(config, site, plan.of_judging(request.round), plan.ahead(request.round, judged=True)) as charge:
        contributor = Contributor(config, site, notes, model, plan.noise_multiplier, SecureRandom())
        reply = contributor.reply(request, contributor.judging(request, METRICS in names), layout)
        charge.leave(reply.segments)
    return reply


def layout_of(config: RunConfig, model: AttentionModel, site: Site, request: Request) -> Layout:
    """Lay a round's sum out, as the server does from the same settings.

    Raises:
        ProtocolError: The server asks in the clear for what is summed securely: a share of noise would not hide it.
    """
    if config.secure_aggregation.enabled != bool(request.terms):
        raise ProtocolError("the run sums securely and the server asks in the clear, or the reverse. Nothing is sent.")
    length = schema_of(model).length if model.attention_sites else 0
    of = lengths(config, request.arrays, length, site.task)
    sites = len(read_terms(request.terms).sites) if request.terms else 2
    return Layout(_segments(config, request, of), config.secure_aggregation.ring_bits, sites)


def plan_of(config: RunConfig, site: Site, layout: Layout, request: Request) -> Plan:
    """Give what the run intends at this site, with the noise that the server intends; the site adds what it prices.

    Raises:
        ProtocolError: The server intends no noise.
    """
    if config.privacy.on and not request.noise_multiplier > 0:
        raise ProtocolError(f"the server intends noise of {request.noise_multiplier}. Under privacy it is more than 0.")
    found = grids(config, layout)
    update, release, metrics = found.get(UPDATE), found.get(RELEASE), found.get(METRICS)
    return Plan(config, site.cohort, update, release, metrics, request.noise_multiplier)


def _segments(config: RunConfig, request: Request, of: Lengths) -> tuple[Segment, ...]:
    if isinstance(request, TrainRequest):
        return training_segments(config, request.round, of, request.noise_multiplier)
    return judging_segments(config, request.round, of)


def _class_of(labels: np.ndarray) -> int:
    """Give a patient one class: the one that most of his images have, of equals the first."""
    return int(np.bincount(labels).argmax())
