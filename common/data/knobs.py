"""A knob: a number with a default, a range, a unit and a physical cause, told once, beside the field it belongs to."""

from dataclasses import field, fields
from typing import Any

from common.errors import ConfigError


def knob(default: float | bool, low: float, high: float, *, unit: str, cause: str) -> Any:
    """Declare a dataclass field with its closed range [low, high]; `check_knobs` keeps it."""
    return field(default=default, metadata={"low": low, "high": high, "unit": unit, "cause": cause})


def check_knobs(owner: Any) -> None:
    """Refuse a dataclass whose knobs leave their ranges.

    Raises:
        ConfigError: The first such knob (NaN lies in no range).
    """
    for each in fields(owner):
        if "low" not in each.metadata:
            continue
        value, low, high = getattr(owner, each.name), each.metadata["low"], each.metadata["high"]
        if not low <= value <= high:
            raise ConfigError(
                f"{type(owner).__name__}: {each.name} ({each.metadata['cause']}) is {value!r}. Allowed is {low:g} to "
                f"{high:g} {each.metadata['unit']}. Choose a value in that range."
            )
