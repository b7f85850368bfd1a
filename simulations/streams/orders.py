"""Streams of clean images: what changes is the order in which they come, and how many of them are positive."""

from dataclasses import dataclass

import numpy as np

from common.errors import DataError
from common.seeds import generator
from simulations.streams.base import Draw, Ground, Halves, Rows, Stream, kinds, positives


def iid(ground: Ground, draw: Draw) -> Stream:
    """All images of the site in random order."""
    return _ordered(ground.target, draw, _shuffled(ground.target, draw))


def no_shift(ground: Ground, draw: Draw) -> Stream:
    """Test images of the sites that trained the model, in random order: nothing has to be adapted to."""
    return _ordered(ground.source, draw, _shuffled(ground.source, draw))


def label_sorted(ground: Ground, draw: Draw) -> Stream:
    """One class after the other, in random order inside each: batches of one class."""
    order = _shuffled(ground.target, draw)
    kind = kinds(ground.target.arriving)
    return _ordered(ground.target, draw, order[np.argsort(kind[order], kind="stable")])


def patient_clustered(ground: Ground, draw: Draw) -> Stream:
    """One patient after the other, in random order; each patient's images stay in theirs."""
    _, owner = np.unique(ground.target.arriving.patients, return_inverse=True)
    place = generator(draw.seed, "order").permutation(int(owner.max()) + 1)
    return _ordered(ground.target, draw, np.argsort(place[owner], kind="stable"))


@dataclass(frozen=True, slots=True)
class Prevalence:
    """As many images as give this share of positives, in random order; without replacement, so that none comes twice.

    Judged are all images of the other half, whose share stays what it was.
    """

    share: float
    of_source: bool = False

    def __call__(self, ground: Ground, draw: Draw) -> Stream:
        """Draw the most images that the rarer kind allows."""
        halves = ground.source if self.of_source else ground.target
        positive = positives(halves.arriving)
        order = _shuffled(halves, draw)
        ill, well = order[positive[order]], order[~positive[order]]
        count = int(min(len(ill) / self.share, len(well) / (1 - self.share)) + 1e-9)
        wanted = round(self.share * count)
        if not 0 < wanted < count:
            raise DataError(
                f"a share of {self.share:g} positives was asked for and there are {len(ill)} positive and {len(well)} "
                f"negative images. Needed are enough of both for one each at that share; choose another site or stream."
            )
        kept = np.concatenate([ill[:wanted], well[: count - wanted]])
        return _ordered(halves, draw, kept[generator(draw.seed, "mix").permutation(count)])


PREVALENCE_10, PREVALENCE_50, PREVALENCE_90 = Prevalence(0.1), Prevalence(0.5), Prevalence(0.9)
PREVALENCE_ONLY_10 = Prevalence(0.1, of_source=True)
PREVALENCE_ONLY_50 = Prevalence(0.5, of_source=True)
PREVALENCE_ONLY_90 = Prevalence(0.9, of_source=True)


def _ordered(halves: Halves, draw: Draw, order: Rows) -> Stream:
    return Stream(halves.arriving.subset(order), halves.judged, draw.batch)


def _shuffled(halves: Halves, draw: Draw) -> Rows:
    return generator(draw.seed, "order").permutation(len(halves.arriving))
