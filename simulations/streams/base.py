"""What a stream is: images that come one batch after another, and images of other patients to judge what came of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.data.base import Dataset, concatenate
from common.errors import DataError
from common.seeds import derive, generator

Rows = NDArray[np.int64]
FEWEST_PATIENTS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Images in two parts that share no patient: `arriving` are adapted on, `judged` are predicted afterwards."""

    arriving: Dataset
    judged: Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What streams are drawn from: a site that the model never saw, and test images of the sites that trained it."""

    target: Halves
    source: Halves


@dataclass(frozen=True, slots=True)
class Draw:
    """How a stream is drawn.

    Args:
        batch: Images at once, from 1.
        seed: Of every draw.
        modality: What the images are (see `simulations.corruptions`); empty where no corruption is asked for.
    """

    batch: int
    seed: int
    modality: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """`arriving` in the order in which they come; `judged` by the state that is left at the end, in any order."""

    arriving: Dataset
    judged: Dataset
    batch: int

    def batches(self) -> Iterator[Rows]:
        """Give the rows of each batch; the last may be smaller."""
        return batches(len(self.arriving), self.batch)


Make = Callable[[Ground, Draw], Stream]
"""Contract of every stream.

The same ground and draw give the same stream. No patient of `judged` is among `arriving`. Labels serve to order and to
judge, never to adapt.

Raises:
    DataError: The ground does not have what the stream needs (a class, enough images).
    ConfigError: A corruption that does not happen in the modality.
"""


def batches(count: int, size: int) -> Iterator[Rows]:
    """Cut `count` rows into batches of `size`; the last may be smaller."""
    return (np.arange(start, min(start + size, count)) for start in range(0, count, size))


def halve(data: Dataset, seed: int) -> Halves:
    """Divide by patient, each worst label on its own, so that both halves hold it wherever two patients have it.

    Who goes where depends on the seed and the patients' names, not on the order of the images. Images judged are mixed.

    Raises:
        DataError: Fewer than two patients.
    """
    patients, owner = np.unique(data.patients, return_inverse=True)
    if len(patients) < FEWEST_PATIENTS:
        raise DataError(
            f"{data.name}: a stream was asked for on {len(patients)} patient(s). Adapting and judging need one each, "
            f"so {FEWEST_PATIENTS} at least; choose another site."
        )
    worst = np.zeros(len(patients), np.int64)
    np.maximum.at(worst, owner, kinds(data))
    keys = np.array([derive(seed, "halves", str(patient)) for patient in patients], np.int64)
    order = np.lexsort((keys, worst))
    second = np.zeros(len(patients), bool)
    second[order[derive(seed, "first") % 2 :: 2]] = True
    judged = np.flatnonzero(second[owner])  # mixed, for a method may look at all images that it is given at once
    return Halves(data.subset(~second[owner]), data.subset(generator(seed, "judged").permutation(judged)))


def halvable(data: Dataset) -> bool:
    """Say whether there are patients for two halves."""
    return len(np.unique(data.patients)) >= FEWEST_PATIENTS


def apart(halves: dict[str, Halves]) -> Halves:
    """Put the halves of several sites together, so that a site's patients stand in the same half with any others.

    Raises:
        DataError: There is none.
    """
    if not halves:
        raise DataError(
            f"no source site has {FEWEST_PATIENTS} test patients, of whom one comes and one is judged. Take streams of "
            f"the new site, or a run with more patients."
        )
    parts = [pooled({name: getattr(half, part) for name, half in halves.items()}) for part in ("arriving", "judged")]
    return Halves(*parts)


def places(data: Dataset) -> NDArray[np.str_]:
    """Name each image's site. [N]"""
    return np.asarray(np.array(data.site_names)[data.sites])


def kinds(data: Dataset) -> NDArray[np.int64]:
    """Give each image's class; of several findings, whether there is any. [N]

    Raises:
        DataError: There are no labels.
    """
    if data.labels is None:
        raise DataError(f"{data.name}: there are no labels. Streams are ordered and judged by labels; give some.")
    return np.asarray(data.labels.any(axis=1) if data.labels.ndim == 2 else data.labels, np.int64)


def positives(data: Dataset) -> NDArray[np.bool_]:
    """Say which images count as positive where a share of positives is asked for. [N]

    Binary: label 1; several findings: any of them; several classes: all but the most frequent one.
    """
    kind = kinds(data)
    if data.labels is not None and data.labels.ndim == 1 and len(data.classes) > 2:
        return np.asarray(kind != np.bincount(kind).argmax())
    return np.asarray(kind > 0)


def pooled(datasets: dict[str, Dataset]) -> Dataset:
    """Put the images of several sites together; equal patient names at two sites stay two patients."""
    renamed = [
        replace(data, patients=np.array([f"{site}/{patient}" for patient in data.patients]))
        for site, data in datasets.items()
    ]
    return concatenate(renamed)
