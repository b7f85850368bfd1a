"""A federation small enough for a test: a few images of each of three embedded hospitals, and ways to train on it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from common.config import RunConfig, load_run_config
from server.checkpoint import Checkpoint
from server.history import RoundRecord
from simulations.engine import Training, train

SITES = ("north", "harbour", "lakeside")
SMALL = {
    "rounds": 2,
    "data.patients-per-site": 6,
    "data.image-size": 32,
    "model.width": 4,
    "train.batch-size": 4,
    "train.device": "cpu",
    "attention.every": 1,
    "attention.patients": 3,
}


def small_config(**changes: Any) -> RunConfig:
    """Change settings of the small run: `small_config(rounds=3, strategy__name="fedbn")`."""
    return load_run_config({**SMALL, **{_key(name): value for name, value in changes.items()}})


def _key(name: str) -> str:
    return name.replace("__", ".").replace("_", "-")


def train_small(
    config: RunConfig, sites: Sequence[str] = SITES, workers: int = 0, stop: Any = None
) -> tuple[Checkpoint, list[RoundRecord]]:
    """Train in one process, one group per site, and give the end and every round's record."""
    records: list[RoundRecord] = []
    training = Training("small", config, tuple((site,) for site in sites))
    return train(training, records.append, stop, workers), records


@lru_cache(maxsize=16)
def reference(config: RunConfig, sites: tuple[str, ...] = SITES) -> tuple[Checkpoint, list[RoundRecord]]:
    """Train as `train_small`, once for all tests of a process that compare with the same run; nobody may change it."""
    return train_small(config, sites)


def same_arrays(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    """Tell whether names, order, dtypes, shapes and bytes are the same."""
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


def sorted_like(found: Checkpoint, other: Checkpoint) -> Checkpoint:
    """Put names in the other's order: a file sorts them."""
    arrays = {name: found.arrays[name] for name in other.arrays}
    state = {name: found.state[name] for name in other.state}
    sums = {name: found.sums[name] for name in other.sums}
    return replace(found, arrays=arrays, state=state, sums=sums)


def same_checkpoint(left: Checkpoint, right: Checkpoint) -> bool:
    """Tell whether two checkpoints agree in every bit: arrays, state, prior and signatures."""
    return (
        left.round == right.round
        and same_arrays(left.arrays, right.arrays)
        and same_arrays(left.state, right.state)
        and same_arrays(left.sums, right.sums)
        and (left.prior is None) == (right.prior is None)
        and (left.prior is None or right.prior is None or same_arrays(left.prior.arrays(), right.prior.arrays()))
        and set(left.signatures) == set(right.signatures)
        and all(
            (mine.schema, mine.patients, mine.total.tobytes(), mine.squares.tobytes())
            == (other.schema, other.patients, other.total.tobytes(), other.squares.tobytes())
            for mine, other in ((left.signatures[site], right.signatures[site]) for site in left.signatures)
        )
    )
