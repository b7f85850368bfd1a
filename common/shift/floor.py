"""The floor of a distance: what it reads between two samples of one population, to be subtracted from what it reads."""

from collections.abc import Callable

import numpy as np

from common.seeds import generator
from common.shift.moments import Moments, Vectors

DRAWS = 200


def floor(
    pooled: Moments,
    left: Moments,
    right: Moments,
    distance: Callable[[Vectors, Vectors], float],
    seed: int,
    draws: int = DRAWS,
) -> float:
    """Mean distance of two means drawn around the pooled one with each side's own size and noise.

    For distances without a closed correction, as ADD-W and the Jensen-Shannon divergence: they are never negative, so
    that two samples of one hospital read a distance. Uses released moments alone: post-processing.

    Args:
        pooled: Whose mean both sides are drawn around and whose variance between patients both have.
        left: Gives the number of patients and the noise of one side.
        right: Of the other.
        distance: Of two mean signatures, such as `add_w` with its schema.
        seed: Of the draws.
        draws: How many pairs.
    """
    rng = generator(seed, "shift", "floor")

    def draw(side: Moments) -> Vectors:
        spread = np.sqrt(pooled.variance / side.patients + side.noise)
        return np.asarray(pooled.mean + rng.standard_normal(len(spread)) * spread)

    return float(np.mean([distance(draw(left), draw(right)) for _ in range(draws)]))
