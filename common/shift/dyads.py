"""Does a distance between sites tell how much a model loses there? Relation over pairs (trained here, judged there)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from math import factorial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from common.errors import DataError
from common.seeds import generator
from common.shift.moments import Vectors

EXACT = 6
"""Up to so many sites every relabelling is tried (720); beyond, 999 are drawn."""
DRAWN = 999


@dataclass(frozen=True, slots=True)
class Dyad:
    """A model trained at `source` and judged at `target`, with the loss of its metric against home."""

    source: str
    target: str
    drop: float


@dataclass(frozen=True, slots=True)
class Relation:
    """How one predictor goes with the drop.

    `low` to `high` is the range of Spearman's ρ when each site in turn is left out: with so few sites no interval would
    keep its promise. `rmse` is the error of predicting the drop at a site that the line was fitted without, `rmse_null`
    that of the others' mean drop. `p` permutes the sites' names (QAP) on the pairs of sites that both train; NaN with
    fewer than three. It cannot be below 1 / sites!.
    """

    dyads: int
    spearman: float
    low: float
    high: float
    slope: float
    rmse: float
    rmse_null: float
    p: float


def relate(dyads: Sequence[Dyad], predictor: Sequence[float], seed: int = 0) -> Relation:
    """Relate a predictor to the drop over dyads, which share sites and so are not independent.

    Source: Mantel 1967; Krackhardt 1988, "Predicting with networks" (QAP), for p.

    Raises:
        DataError: Not one value per dyad, fewer than three dyads, or values that are not finite.
    """
    x, y = np.asarray(predictor, np.float64), np.array([dyad.drop for dyad in dyads])
    if x.shape != y.shape or len(y) < 3 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(
            f"{len(y)} pairs of sites come with {x.size} values. A relation needs at least 3 pairs with one finite "
            f"value each; train local models at more sites."
        )
    sites = sorted({name for dyad in dyads for name in (dyad.source, dyad.target)})
    touches = np.array([[name in (dyad.source, dyad.target) for dyad in dyads] for name in sites])
    without = [spearman(x[~touch], y[~touch]) for touch in touches if (~touch).sum() > 2]
    without = [value for value in without if np.isfinite(value)]
    errors, null = _left_out(x, y, touches)
    return Relation(
        len(y),
        spearman(x, y),
        min(without, default=float("nan")),
        max(without, default=float("nan")),
        _line(x, y)[0],
        errors,
        null,
        _qap(dyads, x, y, seed),
    )


def spearman(x: Vectors, y: Vectors) -> float:
    """Correlation of ranks, ties shared; NaN where one side does not vary."""
    left, right = (rankdata(side) - (len(side) + 1) / 2 for side in (x, y))
    scale = np.sqrt((left**2).sum() * (right**2).sum())
    return float((left * right).sum() / scale) if scale > 0 else float("nan")


def _line(x: Vectors, y: Vectors) -> tuple[float, float]:
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else 0.0
    return slope, float(y.mean() - slope * x.mean())


def _left_out(x: Vectors, y: Vectors, touches: NDArray[np.bool_]) -> tuple[float, float]:
    """Predict the dyads that touch a site by a line through those that do not; NaN where fewer than two remain."""
    line, null = [], []
    for touch in touches:
        if (~touch).sum() < 2 or not touch.any():
            continue
        slope, start = _line(x[~touch], y[~touch])
        line.append((y[touch] - slope * x[touch] - start) ** 2)
        null.append((y[touch] - y[~touch].mean()) ** 2)
    if not line:
        return float("nan"), float("nan")
    return float(np.sqrt(np.concatenate(line).mean())), float(np.sqrt(np.concatenate(null).mean()))


def _qap(dyads: Sequence[Dyad], x: Vectors, y: Vectors, seed: int) -> float:
    names = sorted({dyad.source for dyad in dyads})
    at = {(dyad.source, dyad.target): place for place, dyad in enumerate(dyads)}
    pairs = [(a, b) for a in range(len(names)) for b in range(len(names)) if a != b]
    if len(names) < 3 or any((names[a], names[b]) not in at for a, b in pairs):
        return float("nan")
    drops = np.array([y[at[names[a], names[b]]] for a, b in pairs])

    def statistic(order: Sequence[int]) -> float:
        return spearman(np.array([x[at[names[order[a]], names[order[b]]]] for a, b in pairs]), drops)

    observed = statistic(range(len(names)))
    if not np.isfinite(observed):
        return float("nan")
    found = [statistic(order) >= observed - 1e-12 for order in _orders(len(names), seed)]
    return float(np.mean(found))


def _orders(count: int, seed: int) -> Iterator[Sequence[int]]:
    """Every order, the given one among them; or the given one and 999 drawn."""
    if count <= EXACT:
        yield from islice(permutations(range(count)), factorial(count))
        return
    rng = generator(seed, "shift", "qap")
    yield tuple(range(count))
    for _ in range(DRAWN):
        yield rng.permutation(count).tolist()
