"""Is an adapted model to be used? Only where every one of six tests on images that did not adapt it says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import Field

from common.section import Section


class Limits(Section):
    """What an adapted model may do at most, against the shipped one on the same images."""

    least_gain: float = Field(default=0.1, ge=0, lt=1, description="share by which the distance must fall")
    most_flips: float = Field(default=0.2, ge=0, le=1, description="share of images whose answer may change")
    most_mix_shift: float = Field(default=0.15, ge=0, le=2, description="the estimated label mix may move so far, L1")
    least_entropy: float = Field(
        default=0.029, ge=0, le=1, description="share of ln K; or the shipped model's, if less"
    )
    budget: int = Field(default=50, ge=0, le=10_000, description="gradient steps between two resets")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen on the held-out half of a window; NaN counts as a failure of its test."""

    before: float
    """Projected distance under the shipped weights."""
    after: float
    """The same under the adapted ones."""
    flips: float
    mix_moved: float
    entropy: float
    """Smoothed mean entropy of the answers over ln K, in [0, 1]."""
    entropy_before: float
    """The same under the shipped weights: who was sure before did not become so."""
    steps: int
    outside: Mapping[str, float] = field(default_factory=dict)
    """Vital signs that lie outside the source sites' band, with their values."""


OBJECTIONS = ("no-gain", "flips", "label-mix", "entropy", "attention", "budget")
"""In the order of the six tests."""


def objections(evidence: Evidence, limits: Limits) -> tuple[str, ...]:
    """Name the tests that the adapted model fails; none means that it may be used."""
    passed = (
        evidence.after <= (1 - limits.least_gain) * evidence.before,
        evidence.flips <= limits.most_flips,
        evidence.mix_moved <= limits.most_mix_shift,
        evidence.entropy >= limits.least_entropy or evidence.entropy >= evidence.entropy_before,
        not evidence.outside,
        evidence.steps <= limits.budget,
    )
    return tuple(name for name, well in zip(OBJECTIONS, passed, strict=True) if not well)
