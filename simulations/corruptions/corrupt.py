"""A corruption: what it does, five severities of it, and the modalities in which it happens."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DataError
from common.seeds import generator
from simulations.corruptions import CORRUPTIONS

Image = NDArray[np.float32]
SEVERITIES = (1, 2, 3, 4, 5)
MODALITIES = ("mri", "ct", "xray", "ultrasound", "dermoscopy", "fundus", "microscopy")
EVERYWHERE = frozenset(MODALITIES)
COLOUR = frozenset({"dermoscopy", "fundus", "microscopy"})
FAMILIES = ("noise", "blur", "digital", "intensity", "artefact", "geometry")


@dataclass(frozen=True, slots=True)
class Corruption:
    """One corruption.

    Args:
        act: From an image [C, H, W] with values in [0, 1], a parameter and a generator to an image of that shape;
            values may leave [0, 1], they are clipped afterwards. What it draws must not depend on the parameter, so
            that severities of one image differ in severity alone.
        levels: The parameter at severity 1 to 5.
        family: One of FAMILIES.
        modalities: Where it happens.
        channels: Channels that an image must have; 0 for any number.
    """

    act: Callable[[Image, float, np.random.Generator], Image]
    levels: tuple[float, float, float, float, float]
    family: str
    modalities: frozenset[str] = EVERYWHERE
    channels: int = 0


def corrupt(images: NDArray[np.uint8], name: str, severity: int, seed: int) -> NDArray[np.uint8]:
    """Corrupt images, each by draws of its own that depend on `seed`, the name and its place, not on the severity.

    Shapes: uint8 [N, C, H, W] to the same.

    Raises:
        UnknownNameError: No such corruption.
        ConfigError: A severity other than 1 to 5.
        DataError: Images of another type or number of axes, or without the channels that the corruption needs.
    """
    found: Corruption = CORRUPTIONS.load(name)
    if type(severity) is not int or severity not in SEVERITIES:
        raise ConfigError(f"severity is {severity!r}. Allowed are 1 to 5; the clean image is no severity.")
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(f"images are {images.dtype} of shape {images.shape}. Allowed is uint8 [N, C, H, W].")
    if found.channels not in (0, images.shape[1]):
        raise DataError(
            f"corruption {name!r} needs {found.channels} channels and the images have {images.shape[1]}. Take one of "
            f"another modality."
        )
    out = np.empty_like(images)
    for place, image in enumerate(images):
        clean = image.astype(np.float32) / np.float32(255)
        acted = found.act(clean, found.levels[severity - 1], generator(seed, "corruption", name, place))
        out[place] = np.rint(acted.clip(0, 1) * 255)
    return out


def of_modality(modality: str) -> list[str]:
    """Give the names of the corruptions that happen in a modality, in the table's order.

    Raises:
        ConfigError: No such modality.
    """
    if modality not in MODALITIES:
        raise ConfigError(f"modality is {modality!r}. Allowed are {', '.join(MODALITIES)}.")
    return [name for name in CORRUPTIONS if modality in CORRUPTIONS.load(name).modalities]


def refuse_elsewhere(name: str, modality: str) -> None:
    """Refuse a corruption that does not happen in a modality.

    Raises:
        UnknownNameError: No such corruption at all.
        ConfigError: It does not happen there, and the message names those that do; or no such modality.
    """
    if name not in of_modality(modality):
        CORRUPTIONS.load(name)
        raise ConfigError(
            f"corruption {name!r} does not happen in {modality}. Allowed are {', '.join(of_modality(modality))}."
        )
