"""Streams in which the images themselves change: a corruption, another one in each batch, or a shift that passes."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.data.base import Dataset, concatenate
from common.errors import ConfigError, DataError
from common.items import need_images
from common.seeds import derive, generator
from simulations.corruptions import CORRUPTIONS
from simulations.corruptions.corrupt import MODALITIES, corrupt, of_modality, refuse_elsewhere
from simulations.streams.base import Draw, Ground, Stream, batches
from simulations.streams.orders import iid

MIXED_SEVERITY = 3


def recurring(ground: Ground, draw: Draw) -> Stream:
    """A-B-A: images like the source's, then the site's, then the source's again; equally many of each.

    Judged on the source's other half: what was forgotten shows there.
    """
    random = generator(draw.seed, "order")
    home, away = ground.source.arriving, ground.target.arriving
    first = random.permutation(len(home))
    length = min(len(home) // 2, len(away))
    if not length:
        raise DataError(f"a shift that passes needs two images of the source sites and there are {len(home)}.")
    parts = [
        home.subset(first[:length]),
        away.subset(random.permutation(len(away))[:length]),
        home.subset(first[length : 2 * length]),
    ]
    return Stream(concatenate(parts), ground.source.judged, draw.batch)


def mixed(ground: Ground, draw: Draw) -> Stream:
    """Each batch comes with another corruption of the modality, severity 3, in random order; so do the images judged.

    When all have come, they come again in the same order. Judged are batches of the same size.
    """
    clean = iid(ground, draw)
    names = usable(draw.modality, clean.arriving.channels)
    names = [names[place] for place in generator(draw.seed, "corruptions").permutation(len(names))]
    arriving = _each_batch(clean.arriving, names, draw, "arriving")
    return Stream(arriving, _each_batch(clean.judged, names, draw, "judged"), draw.batch)


@dataclass(frozen=True, slots=True)
class Corrupted:
    """Every image, also those judged, under one corruption at one severity, in random order."""

    name: str
    severity: int

    def __call__(self, ground: Ground, draw: Draw) -> Stream:
        """Corrupt both halves, by draws of their own."""
        refuse_elsewhere(self.name, _named(draw.modality))
        clean = iid(ground, draw)
        arriving, judged = (
            replace(data, images=corrupt(whole(data), self.name, self.severity, derive(draw.seed, part)))
            for data, part in ((clean.arriving, "arriving"), (clean.judged, "judged"))
        )
        return Stream(arriving, judged, draw.batch)


def usable(modality: str, channels: int) -> list[str]:
    """Give the corruptions of a modality that images with so many channels can have.

    Raises:
        ConfigError: No such modality, or none given.
    """
    return [name for name in of_modality(_named(modality)) if CORRUPTIONS.load(name).channels in (0, channels)]


def whole(data: Dataset) -> NDArray[np.uint8]:
    """Give images as whole grey values, as corruptions take them.

    Raises:
        ConfigError: The data are bags.
    """
    need_images("a stream with corruptions", data.side)
    return np.rint(data.images * (1 if data.images.dtype == np.uint8 else 255)).astype(np.uint8)


def _named(modality: str) -> str:
    if not modality:
        raise ConfigError(
            f"a stream with corruptions was asked for and no modality. Which corruptions happen depends on it: give "
            f"--modality, one of {', '.join(MODALITIES)}."
        )
    return modality


def _each_batch(data: Dataset, names: list[str], draw: Draw, part: str) -> Dataset:
    images = whole(data)
    for number, rows in enumerate(batches(len(data), draw.batch)):
        seed = derive(draw.seed, part, number)
        images[rows] = corrupt(images[rows], names[number % len(names)], MIXED_SEVERITY, seed)
    return replace(data, images=images)
