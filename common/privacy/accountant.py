"""What events cost: epsilon at a delta. The only door to dp-accounting.

The figure of record is that of privacy loss distributions (PLD; Meiser and Mohammadi 2018, Koskela et al. 2020), an
upper bound within 1e-4 a step. Rényi divergences (RDP; Mironov 2017) give an independent upper bound that must not
lie below it. Noise on the integers has a Rényi bound only; a ledger that holds such an event is priced by RDP, and
the figure says so. The third accountant of the field, GDP, is refused: it is a central limit theorem and reports too
little.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import dp_accounting
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant, compute_epsilon

from common.errors import PrivacyError
from common.privacy.events import (
    DiscreteGaussian,
    Event,
    Gaussian,
    Laplace,
    Mechanism,
    NonPrivate,
    PoissonSampled,
    Skellam,
    counted,
)
from common.privacy.renyi import DIVERGENCES, ORDERS, sampled_divergence

Accountant = Literal["pld", "rdp"]
Counts = frozenset[tuple[Mechanism | PoissonSampled, int]]
INTERVAL = 1e-4
INTEGER = (Skellam, DiscreteGaussian)

_LAWS: dict[type[Any], Callable[[Any], Any]] = {
    NonPrivate: lambda event: dp_accounting.NonPrivateDpEvent(),
    Gaussian: lambda event: dp_accounting.GaussianDpEvent(event.noise_multiplier),
    Laplace: lambda event: dp_accounting.LaplaceDpEvent(event.noise_multiplier),
    PoissonSampled: lambda event: _sampled(event),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """(epsilon, delta), and which accountant says so."""

    epsilon: float
    delta: float
    accountant: Accountant


def cost(events: Iterable[Event], delta: float, interval: float = INTERVAL) -> Cost:
    """Price events together: by PLD, or by RDP where noise is on the integers.

    Raises:
        PrivacyError: Delta is not within 0 and 1.
    """
    counts = frozenset(counted(events).items())
    if any(isinstance(_inner(event), INTEGER) for event, _ in counts):
        return Cost(_rdp(counts, _checked(delta)), delta, "rdp")
    return Cost(_pld(counts, _checked(delta), interval), delta, "pld")


def epsilon(events: Iterable[Event], delta: float, accountant: str = "pld") -> float:
    """Price events by one accountant.

    Raises:
        PrivacyError: The accountant is not known, is refused (gdp), or cannot price an event.
    """
    counts = frozenset(counted(events).items())
    if accountant == "rdp":
        return _rdp(counts, _checked(delta))
    if accountant != "pld":
        reason = "reports less than the truth: it is a limit theorem, no bound" if accountant == "gdp" else "is unknown"
        raise PrivacyError(f"accountant {accountant!r} {reason}. Allowed are 'pld' and 'rdp'.")
    if any(isinstance(_inner(event), INTEGER) for event, _ in counts):
        raise PrivacyError("noise on the integers has no privacy loss distribution here. Ask accountant 'rdp'.")
    return _pld(counts, _checked(delta), INTERVAL)


@lru_cache(maxsize=512)
def _pld(counts: Counts, delta: float, interval: float) -> float:
    if not counts:
        return 0.0
    accountant = PLDAccountant(value_discretization_interval=interval)
    for event, count in sorted(counts, key=repr):
        accountant.compose(_LAWS[type(event)](event), count)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=512)
def _rdp(counts: Counts, delta: float) -> float:
    if not counts:
        return 0.0
    if not any(isinstance(_inner(event), INTEGER) for event, _ in counts):
        accountant = RdpAccountant()
        for event, count in sorted(counts, key=repr):
            accountant.compose(_LAWS[type(event)](event), count)
        return float(accountant.get_epsilon(delta))
    divergence = [sum(count * _divergence(event, order) for event, count in counts) for order in ORDERS]
    if math.inf in divergence:
        return math.inf
    return max(0.0, float(compute_epsilon(ORDERS, divergence, delta)[0]))


def _divergence(event: Mechanism | PoissonSampled, order: int) -> float:
    if isinstance(event, PoissonSampled):
        return sampled_divergence(event, order)
    return DIVERGENCES[type(event)](event, order)


def _sampled(event: PoissonSampled) -> Any:
    law = _LAWS[type(event.event)](event.event)
    return (
        law if event.sampling_probability == 1 else dp_accounting.PoissonSampledDpEvent(event.sampling_probability, law)
    )


def _inner(event: Mechanism | PoissonSampled) -> Mechanism:
    return event.event if isinstance(event, PoissonSampled) else event


def _checked(delta: float) -> float:
    if not 0 < delta < 1:
        raise PrivacyError(f"delta is {delta}. Allowed is more than 0 and less than 1, best below 1 / patients.")
    return delta
