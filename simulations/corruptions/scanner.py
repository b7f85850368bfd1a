"""Artefacts of MRI (in the frequencies that it measures) and of CT (in the projections that it measures)."""

import numpy as np
from numpy.typing import NDArray

from common.data import phantom_physics
from simulations.corruptions.corrupt import Corruption, Image

Generator = np.random.Generator
MRI, CT = frozenset({"mri"}), frozenset({"ct"})


def bias_field(image: Image, strength: float, rng: Generator) -> Image:
    """Multiply by a smooth coil sensitivity; the parameter is its largest |log|."""
    return np.asarray(phantom_physics.bias_field(image[None], strength, rng)[0])


def ghosting(image: Image, strength: float, rng: Generator) -> Image:
    """Copies shifted along the phase direction: every third line of frequencies is out of step, as when breathing."""
    start = int(rng.integers(3))
    waves = np.fft.fft2(image)
    waves[:, start::3] *= 1 - strength
    return _seen(waves)


def spikes(image: Image, strength: float, rng: Generator) -> Image:
    """Stripes: a few single frequencies that were recorded far too strong."""
    waves = np.fft.fft2(image)
    height, width = image.shape[-2:]
    for _ in range(3):
        y, x = rng.integers(2, height // 3), rng.integers(2, width // 3)
        phase = np.exp(2j * np.pi * rng.random())
        waves[:, y, x] += strength * phase * height * width
        waves[:, -y, -x] += strength * np.conj(phase) * height * width
    return _seen(waves)


def ring(image: Image, strength: float, rng: Generator) -> Image:
    """Rings about the axis of rotation: single detectors that read too much or too little."""
    radius = np.hypot(*_from_centre(image))
    detectors = rng.standard_normal(int(np.ceil(radius.max())) + 1) * (rng.random(int(np.ceil(radius.max())) + 1) < 0.3)
    return np.asarray(image + strength * detectors[np.floor(radius).astype(int)], np.float32)


def streak(image: Image, strength: float, rng: Generator) -> Image:
    """Straight lines through the image: single views that were lost or counted few photons."""
    y, x = _from_centre(image)
    out = image.copy()
    for angle, place, sign in zip(
        rng.uniform(0, np.pi, 12), rng.uniform(-0.3, 0.3, 12), rng.choice([-1, 1], 12), strict=True
    ):
        away = x * np.cos(angle) + y * np.sin(angle) - place * image.shape[-1]
        out += np.float32(strength) * sign * np.exp(-0.5 * (away / 0.7) ** 2).astype(np.float32)
    return out


def metal(image: Image, strength: float, rng: Generator) -> Image:
    """An implant: a white disk with bright and dark rays, which grow fainter with distance."""
    y, x = _from_centre(image)
    side = min(image.shape[-2:])
    y, x = y - rng.uniform(-0.2, 0.2) * side, x - rng.uniform(-0.2, 0.2) * side
    away, rays = np.hypot(y, x), np.cos(6 * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi))
    radius = 0.03 * side * (1 + 2 * strength)
    glare = strength * rays * np.exp(-away / (0.3 * side)) * (away > radius)
    return np.where(away <= radius, np.float32(1), image + glare.astype(np.float32)).astype(np.float32)


def _seen(waves: NDArray[np.complex128]) -> Image:
    return np.asarray(np.abs(np.fft.ifft2(waves)), np.float32)


def _from_centre(image: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    height, width = image.shape[-2:]
    y, x = np.mgrid[:height, :width]
    return y - (height - 1) / 2, x - (width - 1) / 2


BIAS_FIELD = Corruption(bias_field, (0.25, 0.45, 0.7, 1.0, 1.4), "artefact", MRI)
GHOSTING = Corruption(ghosting, (0.15, 0.3, 0.45, 0.65, 0.9), "artefact", MRI)
SPIKES = Corruption(spikes, (0.01, 0.02, 0.035, 0.055, 0.08), "artefact", MRI)
RING = Corruption(ring, (0.04, 0.08, 0.13, 0.2, 0.3), "artefact", CT)
STREAK = Corruption(streak, (0.06, 0.12, 0.2, 0.3, 0.45), "artefact", CT)
METAL = Corruption(metal, (0.15, 0.3, 0.5, 0.75, 1.0), "artefact", CT | {"xray"})
