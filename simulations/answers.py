"""What a method answers at one site, and over several: metrics by seed and by resample of the patients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A method's answer at one site, or over `members` (site, role): metrics averaged over juries and seeds.

    Shapes: by_seed [M, S]; resampled [M, B]; support [M].
    """

    site: str
    role: str
    members: tuple[tuple[str, str], ...]
    by_seed: NDArray[np.float64]
    resampled: NDArray[np.float64]
    support: NDArray[np.int64]


def mean_over_sites(name: str, answers: list[Answer]) -> Answer:
    """Average over sites; one where a metric is undefined (one class only) does not count for that metric."""
    by_seed, defined, support, resampled = _stacked(answers)
    return Answer(
        site=name,
        role=answers[0].role,
        members=tuple(member for answer in answers for member in answer.members),
        by_seed=_mean_defined(by_seed, defined),
        # Sites are independent of each other, so resample b of one goes with resample b of the next.
        resampled=_mean_defined(resampled, defined),
        support=np.where(defined, support, 0).sum(axis=0),
    )


def worst_site(name: str, answers: list[Answer], signs: NDArray[np.float64]) -> Answer:
    """Take, per metric, the site that is worst on average over the seeds, with its own seeds and images.

    The interval is that of the minimum: in each resample the site that is worst there counts, whichever it is.
    """
    by_seed, defined, support, resampled = _stacked(answers)
    mean = np.where(defined, by_seed.mean(axis=2) * signs, np.inf)
    worst, metric = mean.argmin(axis=0), np.arange(len(signs))
    lowest = np.where(defined[..., None], resampled * signs[:, None], np.inf).min(axis=0) * signs[:, None]
    return Answer(
        site=name,
        role=answers[0].role,
        members=tuple(member for answer in answers for member in answer.members),
        by_seed=by_seed[worst, metric],
        resampled=np.where(np.isinf(lowest), np.nan, lowest),
        support=np.where(defined.any(axis=0), support[worst, metric], 0),
    )


def _stacked(
    answers: list[Answer],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
    """Give by_seed [sites, M, S], whether each metric is defined at each site [sites, M], support and resamples."""
    by_seed = np.stack([answer.by_seed for answer in answers])
    return (
        by_seed,
        np.asarray(np.isfinite(by_seed).all(axis=2)),
        np.stack([answer.support for answer in answers]),
        np.stack([answer.resampled for answer in answers]),
    )


def _mean_defined(values: NDArray[np.float64], defined: NDArray[np.bool_]) -> NDArray[np.float64]:
    count = defined.sum(axis=0)[:, None].astype(np.float64)
    total = np.where(defined[..., None], values, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))
