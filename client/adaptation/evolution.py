"""The one door to CMA-ES: a search for the least of a function of which only values are known."""

from collections.abc import Callable

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Evolution:
    """A search that begins at zero, `spread` wide, with `population` candidates per generation.

    Source: Hansen 2016, "The CMA Evolution Strategy: A Tutorial"; the package `cmaes`.
    """

    def __init__(self, size: int, spread: float, population: int, seed: int) -> None:
        self._search = CMA(mean=np.zeros(size), sigma=spread, population_size=population, seed=seed % 2**32)

    def generation(self, cost: Callable[[Floats], float]) -> Floats:
        """Judge one generation, move towards its better half, and give its best candidate, [size].

        A cost that is not finite counts as the worst of the generation; if none is finite nothing moves and the mean
        is given.
        """
        tried = [self._search.ask() for _ in range(self._search.population_size)]
        costs = [cost(one) for one in tried]
        finite = [value for value in costs if np.isfinite(value)]
        if not finite:
            return np.asarray(self._search.mean)
        costs = [value if np.isfinite(value) else max(finite) + 1 for value in costs]
        self._search.tell(list(zip(tried, costs, strict=True)))
        return np.asarray(tried[int(np.argmin(costs))])
