"""A scanner: its physical causes as numbers, a table of presets, and their effect on images."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from common.data import phantom_physics as physics
from common.data.knobs import check_knobs, knob

PIXELS_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """What turns an object into an image; the defaults change nothing.

    Raises:
        ConfigError: A knob leaves its range.
    """

    field_of_view: float = knob(1.0, 0.5, 2.0, unit="× nominal side", cause="size of the scanned square")
    bias_field: float = knob(0.0, 0.0, 1.5, unit="largest absolute log", cause="receive-coil sensitivity")
    vignette: float = knob(0.0, 0.0, 1.0, unit="share of light lost in the corner", cause="off-axis light loss")
    psf_blur: float = knob(0.0, 0.0, 8.0, unit="pixels (σ, of 64 per side)", cause="point-spread function")
    resolution: float = knob(1.0, 0.05, 1.0, unit="acquired ÷ shown pixels per side", cause="acquisition matrix")
    poisson_noise: float = knob(0.0, 0.0, 1.0, unit="relative σ of white", cause="photon counting, dose")
    rician_noise: float = knob(0.0, 0.0, 1.0, unit="σ ÷ white", cause="thermal noise of a magnitude image")
    gain: float = knob(1.0, 0.1, 5.0, unit="×", cause="receiver amplification")
    offset: float = knob(0.0, -1.0, 1.0, unit="÷ white", cause="pedestal, dark current")
    gamma: float = knob(1.0, 0.2, 5.0, unit="exponent", cause="look-up table of the display chain")
    contrast_inversion: bool = knob(False, 0, 1, unit="no or yes", cause="photometric interpretation")

    def __post_init__(self) -> None:
        check_knobs(self)


STAGES = (
    ("bias_field", physics.bias_field),
    ("vignette", physics.vignette),
    ("psf_blur", physics.psf_blur),
    ("resolution", physics.resolution),
    ("poisson_noise", physics.poisson_noise),
    ("rician_noise", physics.rician_noise),
    ("gain", physics.gain),
    ("offset", physics.offset),
    ("gamma", physics.gamma),
    ("contrast_inversion", physics.contrast_inversion),
)
"""The causes in the order in which they act on an object. The field of view acts before them, on the geometry."""

SCANNERS: Mapping[str, Scanner] = MappingProxyType(
    {
        "reference": Scanner(rician_noise=0.02),
        "soft": Scanner(psf_blur=0.6, rician_noise=0.02, gamma=0.88, field_of_view=1.05),
        "coil": Scanner(bias_field=0.3, rician_noise=0.035, gain=1.1),
        "low-dose": Scanner(poisson_noise=0.07, psf_blur=0.35, gamma=1.15, offset=0.03, field_of_view=0.95),
        "wide": Scanner(field_of_view=1.15, vignette=0.25, gain=1.12, offset=-0.03, rician_noise=0.03),
        "worn": Scanner(
            field_of_view=1.12, bias_field=0.5, psf_blur=0.5, resolution=0.7, rician_noise=0.07, gamma=1.45, gain=1.15
        ),
        "inverted": Scanner(contrast_inversion=True, rician_noise=0.03, gamma=0.9),
    }
)
"""Presets, mildest first; the last two lie far from the others."""


def apply_scanner(images: NDArray[np.uint8], scanner: Scanner, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Look at images through a scanner.

    All causes act but the field of view, which would move masks too. Each cause draws from a stream of its own, so
    turning one knob leaves the draws of the others; an image's draws do not depend on the images after it.

    Shapes: uint8 [N, C, H, W] to the same; a scanner without effect gives the same bytes.
    """
    streams = rng.spawn(len(STAGES))
    result = np.empty_like(images)
    step = max(1, PIXELS_AT_ONCE // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        part = images[start : start + step].astype(np.float32) / np.float32(255)
        result[start : start + step] = quantise(acquire(part, scanner, streams))
    return result


def acquire(images: NDArray[np.float32], scanner: Scanner, streams: list[np.random.Generator]) -> NDArray[np.float32]:
    """Let all causes of STAGES act in order, each with its stream; values may leave [0, 1]."""
    for (name, stage), stream in zip(STAGES, streams, strict=True):
        images = stage(images, getattr(scanner, name), stream)
    return images


def quantise(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Clip to [0, 1] and round to 256 levels."""
    levels = np.clip(images, 0, 1)
    levels *= 255
    levels += 0.5
    return levels.astype(np.uint8)
