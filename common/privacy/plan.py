"""What a run intends to release about a site's patients, before it begins: events of every round, and their noise."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from common.config import RunConfig
from common.errors import PrivacyError
from common.privacy.calibration import noise_multiplier
from common.privacy.events import (
    DiscreteGaussian,
    Event,
    Gaussian,
    Laplace,
    Mechanism,
    NonPrivate,
    PoissonSampled,
    Repeated,
    Skellam,
)
from common.privacy.ledger import Release, price
from common.privacy.shares import Grid
from common.protection import PrivacySection


def steps_of(local_epochs: int, sampling_probability: float) -> int:
    """Give the steps of a round in which a patient is expected to be seen `local_epochs` times; at least one."""
    return max(1, round(local_epochs / sampling_probability))


def measured_rounds(config: RunConfig) -> set[int]:
    """Give the rounds in which signatures leave with the update; the last leaves with the final judgement instead."""
    every = config.attention.every
    return {number for number in range(2, config.rounds + 1) if every and (number - 1) % every == 0}


def judged_rounds(config: RunConfig) -> set[int]:
    """Give the rounds after which metrics are released under privacy."""
    every = config.privacy.metrics_every
    return {number for number in range(1, config.rounds + 1) if every and (number % every == 0)}


def distance_released(config: RunConfig) -> bool:
    """Tell whether every site says at the end how far its attention lies from the others'."""
    return config.privacy.on and config.attention.every > 0 and config.privacy.distance_noise_multiplier > 0


def training_event(config: RunConfig, noise: float, grid: Grid | None) -> Event:
    """Give what one round of training costs a patient: many steps at the site, or one step of the whole federation."""
    privacy = config.privacy
    if privacy.placement == "site":
        one = PoissonSampled(privacy.sampling_probability, Gaussian(noise))
        return Repeated(one, steps_of(config.train.local_epochs, privacy.sampling_probability))
    return PoissonSampled(privacy.sampling_probability, added(privacy, noise, grid))


def added(privacy: PrivacySection, noise: float, grid: Grid | None) -> Mechanism:
    """Give the mechanism that covers a sum: continuous noise, or shares of noise on the integers."""
    if privacy.placement != "distributed" or grid is None:
        return Gaussian(noise)
    if privacy.mechanism == "skellam":
        return Skellam(grid.variance(noise), grid.l2, grid.l1)
    return DiscreteGaussian(grid.share_deviation(noise), grid.honest, grid.l2, grid.dimension)


class Plan:
    """The releases of a run at one site, in order.

    Args:
        config: The run's settings.
        cohort: Id of the split of this site's patients; parts of one split share no patient.
        training: The integer grid of updates where noise comes in shares; None where it is continuous.
        signature: The same of signatures.
        metrics: The same of metrics.
        noise: Noise multiplier of training; 0 finds, when it is asked for, the least that keeps the whole plan within
            the run's epsilon.
    """

    def __init__(
        self,
        config: RunConfig,
        cohort: str,
        training: Grid | None = None,
        signature: Grid | None = None,
        metrics: Grid | None = None,
        noise: float = 0.0,
    ) -> None:
        self._config, self._cohort = config, cohort
        self._training, self._signature, self._metrics = training, signature, metrics
        self._given = noise or config.privacy.noise_multiplier

    @cached_property
    def noise_multiplier(self) -> float:
        """Noise of training, in clip norms.

        Raises:
            PrivacyError: What is released with fixed noise costs more than the run's epsilon.
        """
        return self._given or self._calibrated()

    def of_training(self, number: int, noise: float | None = None) -> list[Release]:
        """Give what the update of a round lets out, with the signature where it is measured."""
        config = self._config
        if not config.privacy.on:
            return [self._release(number, "training", "train", NonPrivate())]
        found = [
            self._release(
                number, "training", "train", training_event(config, noise or self.noise_multiplier, self._training)
            )
        ]
        if number in measured_rounds(config):
            found.append(self._release(number, "signature", "train", self._signature_event()))
        return found

    def of_judging(self, number: int) -> list[Release]:
        """Give what the judgement after a round lets out: metrics of validation patients, and the last signature."""
        config = self._config
        if not config.privacy.on:
            return [self._release(number, "metrics", "val", NonPrivate())]
        found = []
        if number in judged_rounds(config):
            event = added(config.privacy, config.privacy.metrics_noise_multiplier, self._metrics)
            found.append(self._release(number, "metrics", "val", event))
        if number == config.rounds and config.attention.every:
            found.append(self._release(number, "signature", "train", self._signature_event()))
        return found

    def of_distance(self) -> list[Release]:
        """Give what the site's distance from the others lets out, once, when all else is done."""
        config = self._config
        if not distance_released(config):
            return []
        event = Laplace(config.privacy.distance_noise_multiplier)
        return [replace(self._release(config.rounds, "distance", "train", event), placement="site")]

    def ahead(self, number: int, judged: bool) -> list[Release]:
        """Give all that is still intended after a round's training (and its judgement, if `judged`)."""
        rest = [] if judged else self.of_judging(number)
        return [*rest, *self._rounds(number + 1)]

    def _rounds(self, first: int, noise: float | None = None) -> Iterator[Release]:
        for number in range(first, self._config.rounds + 1):
            yield from self.of_training(number, noise)
            yield from self.of_judging(number)
        yield from self.of_distance()

    def _calibrated(self) -> float:
        privacy = self._config.privacy
        if not privacy.on:
            return 0.0

        def everything(noise: float) -> list[Event]:
            releases = list(self._rounds(1, noise))
            train = [event for each in releases if each.cohort.endswith("/train") for event in each.events]
            return train

        found = noise_multiplier(everything, privacy.epsilon, privacy.delta)
        judged = price(list(self._rounds(1, found)), privacy.delta).epsilon
        if judged > privacy.epsilon:  # the part that is judged and never trains: no noise of training helps it
            raise PrivacyError(
                f"the metrics of {self._config.rounds} rounds cost validation patients epsilon {judged:.3g}, more than "
                f"the {privacy.epsilon:g} allowed. Set `privacy.metrics-every` or `privacy.metrics-noise-multiplier` "
                f"higher."
            )
        return found

    def _signature_event(self) -> Event:
        return added(self._config.privacy, self._config.privacy.signature_noise_multiplier, self._signature)

    def _release(self, number: int, purpose: str, part: str, event: Event) -> Release:
        return Release(
            run=self._config.digest(),
            round=number,
            purpose=purpose,
            cohort=f"{self._cohort}/{part}",
            events=(event,),
            placement=self._config.privacy.placement,
        )
