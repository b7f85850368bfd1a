"""What a mechanism did, as data: what it costs is computed elsewhere (`accountant.py`), and the ledger keeps it.

A kind is never removed and a field never changes its meaning, for ledgers outlive versions; a new mechanism is a new
kind. The unit is the patient; neighbouring data sets differ by adding or removing all data of one patient.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from common.errors import LedgerError, PrivacyError


@dataclass(frozen=True, slots=True)
class NonPrivate:
    """A release without noise: epsilon is infinite."""


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Normal noise of `noise_multiplier` L2 sensitivities on every entry of a vector."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        _positive(self, "noise_multiplier")


@dataclass(frozen=True, slots=True)
class Laplace:
    """Laplace noise whose scale is `noise_multiplier` L1 sensitivities."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        _positive(self, "noise_multiplier")


@dataclass(frozen=True, slots=True)
class Skellam:
    """Skellam noise on the integers: `variance` of the sum's noise, sensitivities `l2` and `l1` after rounding."""

    variance: float
    l2: float
    l1: float

    def __post_init__(self) -> None:
        _positive(self, "variance", "l2", "l1")


@dataclass(frozen=True, slots=True)
class DiscreteGaussian:
    """The sum of `shares` discrete Gaussians of parameter `sigma` on `dimension` integers; `l2` after rounding."""

    sigma: float
    shares: int
    l2: float
    dimension: int

    def __post_init__(self) -> None:
        _positive(self, "sigma", "shares", "l2", "dimension")


Mechanism = NonPrivate | Gaussian | Laplace | Skellam | DiscreteGaussian


@dataclass(frozen=True, slots=True)
class PoissonSampled:
    """A mechanism that saw each patient with `sampling_probability`, independently."""

    sampling_probability: float
    event: Mechanism

    def __post_init__(self) -> None:
        if not 0 < self.sampling_probability <= 1:
            raise PrivacyError(
                f"a sampling probability is {self.sampling_probability}. Allowed is more than 0 and at most 1; set "
                f"`privacy.sampling-probability`."
            )


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same event, `count` times, each with noise of its own."""

    event: Mechanism | PoissonSampled
    count: int

    def __post_init__(self) -> None:
        if self.count < 0:
            raise PrivacyError(f"an event is repeated {self.count} times. Allowed are 0 or more.")


Event = Mechanism | PoissonSampled | Repeated

KINDS: dict[str, type[Any]] = {
    "non-private": NonPrivate,
    "gaussian": Gaussian,
    "laplace": Laplace,
    "skellam": Skellam,
    "discrete-gaussian": DiscreteGaussian,
    "poisson-sampled": PoissonSampled,
    "repeated": Repeated,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


def to_json(event: Event) -> dict[str, Any]:
    """Give an event as an object that `from_json` reads."""
    values = asdict(event)
    if "event" in values:
        values["event"] = to_json(event.event)  # type: ignore[union-attr]
    return {"kind": _NAMES[type(event)], **values}


def from_json(body: Mapping[str, Any]) -> Event:
    """Read an event.

    Raises:
        LedgerError: The kind is unknown, a field is missing, surplus or out of range.
    """
    kind = KINDS.get(body.get("kind", "")) if isinstance(body, Mapping) else None
    names = {item.name for item in fields(kind)} if kind else set()
    if kind is None or set(body) != {"kind", *names}:
        found = body.get("kind") if isinstance(body, Mapping) else type(body).__name__
        raise LedgerError(
            f"an event of kind {found!r} cannot be read. Known are {', '.join(KINDS)}, each with its own fields; read "
            f"the ledger with the version that wrote it."
        )
    values = {name: from_json(body[name]) if name == "event" else body[name] for name in names}
    try:
        event: Event = kind(**values)
    except (TypeError, PrivacyError) as error:
        raise LedgerError(f"an event of kind {body['kind']!r} is out of range: {error}") from None
    return event


def counted(events: Iterable[Event]) -> dict[Mechanism | PoissonSampled, int]:
    """Count equal events; the order of events changes nothing."""
    counts: dict[Mechanism | PoissonSampled, int] = {}
    for event in events:
        one, times = (event.event, event.count) if isinstance(event, Repeated) else (event, 1)
        if times:
            counts[one] = counts.get(one, 0) + times
    return counts


def _positive(event: Any, *names: str) -> None:
    for name in names:
        value = getattr(event, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise PrivacyError(
                f"{name.replace('_', ' ')} of {type(event).__name__} is {value!r}. Allowed are finite numbers above 0."
            )
