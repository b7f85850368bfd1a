"""Bins of a reliability curve: neighbours merged until they say something, and the interval of a share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PARTS, FEWEST, ENOUGH = 6, 10, 100
"""A curve wants six even points; a point holds ten predictions at least, else chance would look like a finding, and is
not merged further once it holds a hundred."""

NORMAL = 1.959964
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Neighbouring bins of the table as one: mean confidence, observed share, predictions."""

    confidence: float
    observed: float
    count: int


def merged(rows: Sequence[dict[str, Any]]) -> list[Bin]:
    """Merge neighbouring bins into six of about equal count, none under 10; bins that hold 100 may stand alone.

    Means are weighted by count. Fewer than ten predictions in all make one bin.
    """
    groups: list[list[dict[str, Any]]] = []
    left, held = sum(row["count"] for row in rows), 0
    for row in sorted(rows, key=lambda row: int(row["bin"])):
        if held == 0:
            groups.append([])
        groups[-1].append(row)
        held += row["count"]
        share = min(math.ceil(left / max(PARTS + 1 - len(groups), 1)), ENOUGH)
        if held >= max(FEWEST, share) and left - held >= FEWEST:
            left, held = left - held, 0
    return [_whole(group) for group in groups]


def wilson(share: float, count: int) -> tuple[float, float]:
    """Give the 95 % interval of an observed share, in [0, 1].

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", J Am Stat Assoc 22.
    """
    spread = NORMAL**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = NORMAL / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _whole(group: list[dict[str, Any]]) -> Bin:
    count = sum(row["count"] for row in group)
    said, seen = (sum(row["count"] * row[key] for row in group) / count for key in ("confidence", "observed"))
    return Bin(said, seen, count)
