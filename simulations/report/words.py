"""Numbers and metrics in words: one way to write each, for figures, tables and sentences alike."""

import math
from collections.abc import Mapping
from typing import Any

from common.errors import UnknownNameError
from common.metrics import METRICS

DASH = "–"
"""Written for what is undefined."""

UNDEFINED = "undefined: only one class, no foreground, or no image at this site"


NO_DISTANCE = "undefined: on no image did both the expert and the model outline something"


def undefined(metric: str) -> str:
    """Say why a metric has no value."""
    return NO_DISTANCE if metric == "hd95" else UNDEFINED


def title(metric: str) -> str:
    """Name of a metric as readers know it."""
    try:
        return str(METRICS.load(metric)().title)
    except UnknownNameError:
        return metric


def higher_is_better(metric: str) -> bool:
    """Say whether more is better."""
    try:
        return bool(METRICS.load(metric)().higher_is_better)
    except UnknownNameError:
        return metric != "loss"


def direction(metric: str) -> str:
    """Name of the metric and which way is better."""
    return f"{title(metric)} ({'higher' if higher_is_better(metric) else 'lower'} is better)"


def digits(metric: str) -> int:
    """Decimals to write: distances in pixels need fewer than shares."""
    return 1 if metric == "hd95" else 3


def number(value: float | None, decimals: int = 3, signed: bool = False) -> str:
    """Write a number, or a dash where it is undefined."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def interval(row: Mapping[str, Any], decimals: int = 3, value: str = "value") -> str:
    """Write a value with its interval: 0.871 (0.832–0.911)."""
    signed = value == "difference"
    if number(row[value]) == DASH:
        return DASH
    low, high = number(row["low"], decimals, signed), number(row["high"], decimals, signed)
    shown = number(row[value], decimals, signed)
    if DASH in (low, high):
        return f"{shown} (no interval)"
    return f"{shown} ({low}{' to ' if signed else '–'}{high})"


def count(amount: int, one: str, many: str | None = None) -> str:
    """Write an amount with its noun: 1 image, 240 images, 1,200 images."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def resampled(seeds: int) -> str:
    """Say what an interval covers."""
    return "patients and seeds resampled" if seeds > 1 else "patients resampled"


def listed(names: list[str]) -> str:
    """Join names as in a sentence."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def shorten(name: str, length: int = 26) -> str:
    """Cut a long name in the middle, where names differ least."""
    if len(name) <= length:
        return name
    tail = length // 3
    return f"{name[: length - tail - 1].rstrip()}…{name[-tail:].lstrip()}"
