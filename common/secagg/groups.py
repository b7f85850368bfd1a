"""Groups of sites, each summed by itself, and rules that a few bad groups cannot sway.

Secure aggregation hides single updates, so no rule can look at them. It can look at the means of groups, drawn anew
each round; the price is that every group's sum is seen, hidden among the sites of the group alone.

Sources: Yin et al. 2018 (median, trimmed mean); Blanchard et al. 2017 (Krum).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import SecureAggregationError
from common.randomness import SecureRandom

Floats = NDArray[np.float64]


def draw_groups(sites: Sequence[str], groups: int, fewest: int) -> list[tuple[str, ...]]:
    """Divide sites at random, by the cryptographic source: nobody may choose with whom he is summed.

    Raises:
        SecureAggregationError: `too-few-sites`: a group would have fewer than `fewest`.
    """
    if len(sites) // groups < fewest:
        raise SecureAggregationError(
            "too-few-sites",
            f"{len(sites)} sites in {groups} groups leave {len(sites) // groups} a group, fewer than {fewest}. Set "
            f"`secure-aggregation.groups` lower, or let more sites take part.",
        )
    order = np.argsort(SecureRandom().uniform(len(sites)))
    shuffled = [sorted(sites)[place] for place in order]
    return [tuple(sorted(shuffled[start::groups])) for start in range(groups)]


def combine(means: Floats, rule: str) -> Floats:
    """Make one mean of the groups' means, [G, n] -> [n].

    mean; median and trimmed-mean by coordinate, the latter without the lowest and highest quarter (at least one of
    each); krum: the group's mean that lies nearest to its G − f − 2 nearest others, f = ⌊(G − 3)/2⌋ groups being bad.
    """
    groups = len(means)
    if rule == "mean" or groups < 3:
        return np.asarray(means.mean(axis=0))
    if rule == "median":
        return np.asarray(np.median(means, axis=0))
    if rule == "trimmed-mean":
        cut = min(max(1, groups // 4), (groups - 1) // 2)
        return np.asarray(np.sort(means, axis=0)[cut : groups - cut].mean(axis=0))
    squares = (means**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * means @ means.T
    near = max(1, groups - (groups - 3) // 2 - 2)
    scores = np.sort(distances + np.diag(np.full(groups, math.inf)), axis=1)[:, :near].sum(axis=1)
    return np.asarray(means[int(scores.argmin())])
