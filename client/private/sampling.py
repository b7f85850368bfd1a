"""Which patients a step sees: each with the same probability, independently of all others (Poisson sampling).

The accountant's amplification holds for this law and no other. It is drawn from the cryptographic source: whoever could
compute the draw from the run's seed would know who took part.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.randomness import SecureRandom

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Whole patients: the images' indices, and which of its patients each image is of.

    Shapes: images [B]; patients [B], 0 to P − 1 in ascending order.
    """

    images: Index
    patients: Index


class Patients:
    """The patients of a data set and their images.

    Args:
        names: Patient of each image, [N].
        most: At most so many images of one patient in a step; which ones is drawn anew each time.
    """

    def __init__(self, names: NDArray[np.str_], most: int) -> None:
        _, patient = np.unique(names, return_inverse=True)
        order = np.argsort(patient, kind="stable")
        self._images = np.split(order, np.flatnonzero(np.diff(patient[order])) + 1) if len(names) else []
        self._most = most

    def __len__(self) -> int:
        return len(self._images)

    def sample(self, probability: float, random: SecureRandom) -> list[Index]:
        """Draw patients and give the images of each; the list may be empty."""
        chosen = np.flatnonzero(random.chosen(len(self), probability))
        return [self._some(self._images[each], random) for each in chosen]

    def _some(self, images: Index, random: SecureRandom) -> Index:
        if len(images) <= self._most:
            return images
        return images[np.argsort(random.uniform(len(images)))[: self._most]]


def micro_batches(patients: list[Index], most: int) -> Iterator[MicroBatch]:
    """Pack whole patients into micro-batches of at most `most` images; a patient with more stands alone."""
    start = 0
    while start < len(patients):
        stop, count = start + 1, len(patients[start])
        while stop < len(patients) and count + len(patients[stop]) <= most:
            count += len(patients[stop])
            stop += 1
        part = patients[start:stop]
        numbers = np.repeat(np.arange(len(part)), [len(each) for each in part])
        yield MicroBatch(np.concatenate(part), numbers)
        start = stop
