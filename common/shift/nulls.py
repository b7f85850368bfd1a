"""What a distance would be if nothing had moved: by permutation, by simulation from released moments, between sites."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.seeds import generator
from common.shift.moments import Moments, Vectors, check_length, check_rows
from common.shift.projected import Whitening

PERMUTATIONS, DRAWS, WINDOWS = 999, 10_000, 200
QUANTILE = 0.99
BATCH = 500

Verdict = Literal["normal", "heterogeneous", "alarm"]


@dataclass(frozen=True, slots=True)
class Test:
    """A statistic and the share of null draws at least as large, itself counted: p in [1 / (draws + 1), 1]."""

    __test__ = False  # no test of pytest's

    statistic: float
    p: float


def permutation_test(
    left: Vectors, right: Vectors, seed: int, strata: NDArray[np.int64] | None = None, permutations: int = PERMUTATIONS
) -> Test:
    """Test ‖m_i − m_j‖² by dealing the patients out anew: exact for equal laws, whatever they are.

    Whiten or embed the rows first. With `strata`, the labels of left then right, patients change sides only within
    their class: then a difference of prevalence is part of the null, and what is tested is the law within classes.

    Shapes: [P, d], [Q, d], strata [P + Q].
    Source: Phipson and Smyth 2010, eq. 2, for p.
    """
    first, second = check_rows(left), check_rows(right)
    check_length(first, second)
    rows = np.concatenate([first, second])
    side = np.arange(len(rows)) < len(first)
    groups = np.zeros(len(rows), np.int64) if strata is None else np.asarray(strata)
    if groups.shape != (len(rows),):
        raise DataError(f"{len(rows)} patients come with strata of shape {groups.shape}. Give one stratum each.")
    rng = generator(seed, "shift", "permutation")
    observed = _gaps(rows, side[None])[0]
    null = np.concatenate(
        [
            _gaps(rows, np.stack([_deal(side, groups, rng) for _ in range(min(BATCH, permutations - done))]))
            for done in range(0, permutations, BATCH)
        ]
    )
    return _test(float(observed), null)


def _deal(side: NDArray[np.bool_], groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    dealt = side.copy()
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        dealt[places] = side[rng.permutation(places)]
    return dealt


def _gaps(rows: Vectors, sides: NDArray[np.bool_]) -> Vectors:
    """‖m_i − m_j‖² for many ways to part the rows. Shapes: [N, d], [R, N] -> [R]."""
    size = int(sides[0].sum())
    sums = sides.astype(np.float64) @ rows
    gap = sums / size - (rows.sum(0) - sums) / (len(rows) - size)
    return np.asarray((gap**2).sum(1))


def parametric_test(left: Moments, right: Moments, whiten: Whitening, seed: int, draws: int = DRAWS) -> Test:
    """Test ‖P_U W (m_i − m_j)‖² from released moments alone: the difference is N(0, v_i/n_i + v_j/n_j + σ_i² + σ_j²).

    Post-processing of what was released, so it costs no privacy. Takes the entries as independent, since only their
    variances are released; where they are correlated, `permutation_test` on the rows is the one to trust.
    """
    check_length(left.mean, right.mean)
    spread = left.variance / left.patients + right.variance / right.patients + left.noise + right.noise
    rng = generator(seed, "shift", "parametric")
    drawn = whiten(rng.standard_normal((draws, len(spread))) * np.sqrt(spread))
    return _test(float((whiten(left.mean - right.mean) ** 2).sum()), (drawn**2).sum(1))


def _test(statistic: float, null: Vectors) -> Test:
    slack = 1e-12 * max(1.0, abs(statistic))  # the same deal in another order of sums is a tie
    return Test(statistic, (1 + int((null >= statistic - slack).sum())) / (1 + len(null)))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """99 % quantiles of windows without news: `sample` of patients of the pool, `site` of sites against the others."""

    sample: float
    site: float

    def verdict(self, statistic: float) -> Verdict:
        """Say what to make of a window: as patients vary, as known sites vary, or beyond both."""
        if statistic <= self.sample:
            return "normal"
        return "heterogeneous" if statistic <= self.site else "alarm"


def thresholds(
    sites: Mapping[str, tuple[Vectors, NDArray[np.int64]]],
    learn: Callable[[Vectors, NDArray[np.int64]], Whitening],
    window: int,
    seed: int,
    windows: int = WINDOWS,
) -> Thresholds:
    """Build the hierarchical null from source sites: real hospitals always differ, and an alarm must know by how much.

    For every site: windows of `window` patients, drawn with replacement, against the others' mean, whitened by what
    `learn` finds on the others; `site` is the 99 % quantile over the windows of all sites, hence of a site left out.
    `sample` is that of windows from the pool of all. The statistic is `window_statistic`.

    Args:
        sites: Rows [P, d] and labels [P] of each source site, two sites at least.
        learn: Such as `whitening`.
        window: Patients in a window; use the same when a new window is judged.
        seed: Of the draws.
        windows: Windows per site.
    """
    if len(sites) < 2 or window < 2:
        raise DataError(
            f"{len(sites)} source sites and windows of {window} patients make no null between sites. At least 2 of "
            f"each are needed; train with more sites or use the permutation test."
        )
    found: list[Vectors] = []
    for name in sites:
        others = [part for other, part in sites.items() if other != name]
        rows, labels = (np.concatenate(parts) for parts in zip(*others, strict=True))
        found.append(_windows(sites[name][0], rows, learn(rows, labels), (windows, window), derived(seed, name)))
    rows, labels = (np.concatenate(parts) for parts in zip(*sites.values(), strict=True))
    pooled = _windows(rows, rows, learn(rows, labels), (windows, window), derived(seed, "pool", "all"))
    return Thresholds(float(np.quantile(pooled, QUANTILE)), float(np.quantile(np.concatenate(found), QUANTILE)))


def derived(seed: int, *path: str) -> np.random.Generator:
    """Give the generator of one site's windows."""
    return generator(seed, "shift", "windows", *path)


def window_statistic(rows: Vectors, reference: Vectors, whiten: Whitening) -> float:
    """‖P_U W (window's mean − reference's mean)‖² / (d − rank U), as `Thresholds` takes it; not corrected."""
    return float((whiten(rows.mean(0) - reference.mean(0)) ** 2).sum() / whiten.freedom)


def _windows(
    rows: Vectors, reference: Vectors, whiten: Whitening, shape: tuple[int, int], rng: np.random.Generator
) -> Vectors:
    draws = rng.integers(len(rows), size=shape)
    return np.array([window_statistic(rows[drawn], reference, whiten) for drawn in draws])
