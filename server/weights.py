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
    """Give h(d_k) / h(q) of each site, cut to [0.5, 2]: w_k ∝ n_k h(d_k), d_k its attention's distance to the others'.

    - robust: h = exp(−(d/q)²): distrusts who differs, for sensor faults.
    - fair: h = exp(d/(2q)): lifts who differs, so that an outlier hospital is not outvoted.

    q is the median of the sites' distances; a run has no released null to take q_site from. Weights know h only up to a
    constant, and dividing by h(q) makes the site in the middle count as its images say. Without it robust weights would
    do nothing: h(q) = e^−1 lies below 0.5 already, so that the cut would take the middle and the outlier alike.

    Down-weighting by distance silently sacrifices the hospital whose patients or scanner are unusual: look at the worst
    site beside the mean. Of fewer than three sites none is farther from the others than another: all factors are 1.

    Source: ours; h after q-FedAvg's and robust aggregation's opposite aims (Li et al. 2020; Pillutla et al. 2022).
    """
    known = {site: signature for site, signature in sorted(signatures.items()) if signature.patients > 0}
    if mode == "none" or len(known) < 3:
        return dict.fromkeys(known, 1.0)
    far = {site: distance_to_others(site, known, schema) for site in known}
    middle = float(np.median(list(far.values())))
    if middle <= 0:
        return dict.fromkeys(known, 1.0)
    return {site: _factor(d / middle, mode) for site, d in far.items()}


def distance_to_others(site: str, signatures: Mapping[str, Signature], schema: Schema) -> float:
    """Give ADD-W between a site's mean signature and that of all other sites' patients together.

    A projected signature has no blocks for ADD-W to compare; then it is the Euclidean distance of the two means.
    """
    others = reduce(add, (signature for name, signature in sorted(signatures.items()) if name != site))
    own = signatures[site]
    return float(np.linalg.norm(own.mean - others.mean)) if schema.projected else add_w(schema, own.mean, others.mean)


def _factor(ratio: float, mode: Mode) -> float:
    """Give h(d) / h(q) for a ratio d/q, cut; beyond a ratio of 10 both modes are cut anyway."""
    ratio = min(ratio, 10.0)
    power = 1 - ratio**2 if mode == "robust" else (ratio - 1) / 2
    return min(MOST, max(LEAST, math.exp(power)))


def weighed(updates: Sequence[Weighted], factor: Mapping[str, float]) -> list[Weighted]:
    """Multiply each site's weight by its factor; a site that was never measured keeps its own."""
    return [replace(item, weight=item.weight * factor.get(item.site, 1.0)) for item in updates]
