"""A run's privacy planned on paper: the noise for so many rounds, and the rounds that a noise affords."""

from dataclasses import dataclass
from typing import Any

from common.config import RunConfig
from common.errors import PrivacyError
from common.privacy.accountant import cost
from common.privacy.calibration import affordable
from common.privacy.events import Event
from common.privacy.ledger import Release, price
from common.privacy.plan import Plan
from common.privacy.statement import statement

EPSILONS = (1.0, 3.0, 8.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """What was found: the noise for the run's epsilon, the same for others, and the cost of fewer or more rounds."""

    allowed: float
    delta: float
    rounds: int
    noise_multiplier: float
    epsilon: float
    rounds_affordable: int
    table: list[dict[str, Any]]
    curve: list[dict[str, Any]]
    statement: str


def plan_run(config: RunConfig, patients: int) -> Planned:
    """Plan a run under the settings of `[privacy]`, for noise at the site.

    Args:
        config: The run's settings; a mechanism must be set.
        patients: Of one site, for the noise on the mean of a step.

    Raises:
        PrivacyError: What is released with fixed noise costs more than the epsilon.
    """
    noise = Plan(config, "split").noise_multiplier
    rows = [_row(config.replace({"privacy.epsilon": epsilon}), patients) for epsilon in _epsilons(config)]
    found = price(_releases(config, noise, config.rounds), config.privacy.delta)
    return Planned(
        allowed=config.privacy.epsilon,
        delta=config.privacy.delta,
        rounds=config.rounds,
        noise_multiplier=noise,
        epsilon=found.epsilon,
        rounds_affordable=min(_affordable(config, noise, part) for part in _parts(config, noise, config.rounds)),
        table=[row for row in rows if row],
        curve=_curve(config, noise),
        statement=statement(found.epsilon, found.delta, found.accountant),
    )


def _row(config: RunConfig, patients: int) -> dict[str, Any]:
    """Give what an epsilon needs; nothing where what has fixed noise costs more."""
    try:
        noise = Plan(config, "split").noise_multiplier
    except PrivacyError:
        return {}
    expected = config.privacy.sampling_probability * patients
    return {
        "epsilon": config.privacy.epsilon,
        "noise_multiplier": noise,
        "noise_of_a_step": noise * config.privacy.clip_norm / max(expected, 1.0),
        "patients_for_a_tenth": round(10 * noise / config.privacy.sampling_probability),
    }


def _curve(config: RunConfig, noise: float) -> list[dict[str, Any]]:
    """Price the run at several lengths with one noise."""
    numbers = sorted({max(1, round(config.rounds * share)) for share in (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)})
    return [
        {"rounds": number, "epsilon": max(cost(each, config.privacy.delta, 1e-3).epsilon for each in parts.values())}
        for number in numbers
        if (parts := _parts(config, noise, number))
    ]


def _affordable(config: RunConfig, noise: float, part: str) -> int:
    """Give the rounds that one part of the split can pay for."""
    privacy = config.privacy
    return affordable(lambda number: _parts(config, noise, number).get(part, []), privacy.epsilon, privacy.delta)


def _parts(config: RunConfig, noise: float, rounds: int) -> dict[str, list[Event]]:
    """Give what patients of each part of a split pay for so many rounds: those who train, and those who judge."""
    parts: dict[str, list[Event]] = {}
    for release in _releases(config, noise, rounds):
        parts.setdefault(release.cohort, []).extend(release.events)
    return parts


def _releases(config: RunConfig, noise: float, rounds: int) -> list[Release]:
    plan = Plan(config.replace({"rounds": rounds}), "split", noise=noise)
    return [*plan.of_training(1), *plan.of_judging(1), *plan.ahead(1, judged=True)]


def _epsilons(config: RunConfig) -> list[float]:
    return sorted({*EPSILONS, config.privacy.epsilon})
