"""Attention-aware weights: how far a site's attention lies from the others' may raise or lower what it counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Literal

import numpy as np

from common.attention.distance import add_w
from common.attention.schema import Schema
from common.attention.signature import Signature
from server.strategies.base import Weighted

Mode = Literal["none", "robust", "fair"]
LEAST, MOST = 0.5, 2.0
"""No site counts less than half, or more than twice, what its images make it count."""


def factors(signatures: Mapping[str, Signature], schema: Schema, mode: Mode) -> dict[str, float]:
    """Give h(d_k) of each site: w_k ∝ n_k h(d_k), d_k = ADD-W between its mean signature and that of all others.

    - robust: h = exp(−(d/q)²): distrusts who differs, for sensor faults or poisoning.
    - fair: h = exp(d/(2q)): lifts who differs, so that an outlier hospital is not outvoted.

    q is the median of the sites' distances; a run has no released null to take q_site from. h is cut to [0.5, 2].
    Down-weighting by distance silently sacrifices the hospital whose patients or scanner are unusual: look at the worst
    site beside the mean. Fewer than three sites have no others to differ from: all factors are 1.

    Source: ours; h after q-FedAvg's and robust aggregation's opposite aims (Li et al. 2020; Pillutla et al. 2022).
    """
    known = {site: signature for site, signature in sorted(signatures.items()) if signature.patients > 0}
    if mode == "none" or len(known) < 3:
        return dict.fromkeys(known, 1.0)
    far = {site: distance_to_others(site, known, schema) for site in known}
    middle = float(np.median(list(far.values())))
    if middle <= 0:
        return dict.fromkeys(known, 1.0)
    raw = {site: -((d / middle) ** 2) if mode == "robust" else d / (2 * middle) for site, d in far.items()}
    return {site: min(MOST, max(LEAST, math.exp(min(value, 1.0)))) for site, value in raw.items()}


def distance_to_others(site: str, signatures: Mapping[str, Signature], schema: Schema) -> float:
    """Give ADD-W between a site's mean signature and that of all other sites' patients together."""
    others = reduce(add, (signature for name, signature in sorted(signatures.items()) if name != site))
    return add_w(schema, signatures[site].mean, others.mean)


def weighed(updates: Sequence[Weighted], factor: Mapping[str, float]) -> list[Weighted]:
    """Multiply each site's weight by its factor; a site that was never measured keeps its own."""
    return [replace(item, weight=item.weight * factor.get(item.site, 1.0)) for item in updates]
