"""What of a model is a site's own, and the model that follows from it and the global arrays.

A site keeps one table of arrays per round (`client/store.py`). A name of the model stands for that array itself; under
`copy/` lies what a second model has in its place, under `mixed/` what is mixed with it by the weight `mixing/weight`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.site import Site
from client.store import Store
from common.arrays import Arrays
from common.errors import ConfigError

COPY, MIXED, WEIGHT = "copy/", "mixed/", "mixing/weight"
Table = Mapping[str, NDArray[Any]]


def own_store(site: Site) -> Store:
    """Open the store of a site's own arrays.

    Raises:
        ConfigError: The site has no folder.
    """
    if site.store is None:
        raise ConfigError(
            "this run keeps arrays at the sites (`strategy.name`, `strategy.personal`) and there is no folder for "
            "them. Set `out`, or the site's `state`."
        )
    return Store(site.store)


def own_arrays(arrays: Table, kept: Table) -> Arrays:
    """Give the arrays that a site's answers come from: α v + (1 − α) w where mixed, else its own, else the global ones.

    Args:
        arrays: The global ones.
        kept: The site's table; empty at a site that never trained.
    """
    shared = {**arrays, **own_parts(kept)}
    second = below(kept, COPY)
    weight = kept.get(WEIGHT, np.ones(()))
    mixed = {name: blend(array, shared[name], weight) for name, array in below(kept, MIXED).items()}
    return {**shared, **second, **mixed}


def own_parts(kept: Table) -> Arrays:
    """Give the site's arrays that stand in the place of global ones while the shared model trains."""
    return {name: array for name, array in kept.items() if "/" not in name}


def below(kept: Table, prefix: str) -> Arrays:
    """Give what lies under a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in kept.items() if name.startswith(prefix)}


def under(prefix: str, arrays: Table) -> Arrays:
    """Put arrays under a prefix."""
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def blend(own: NDArray[Any], shared: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Compute α v + (1 − α) w in float64; v itself for α = 1, w itself for α = 0."""
    alpha = float(weight)
    return np.asarray(alpha * own.astype(np.float64) + (1 - alpha) * shared.astype(np.float64)).astype(own.dtype)
