"""Lesions: a table of kinds, and their place, size and contrast in each patient's liver."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.data.phantom_anatomy import Slices, profile
from common.data.phantom_population import Population
from common.data.phantom_shapes import Floats, Layer

SLOTS = 3
"""Most lesions of one patient."""
COUNTS = (0.6, 0.25, 0.15)
"""Share of patients with one, two and three lesions, of those who have any."""
SECOND_KIND = 0.25
"""Share of further lesions whose kind is drawn anew."""
SMALL = (0.060, 0.095)
LARGE = (0.095, 0.180)
"""Radii in half image sides: 2.1 to 3.3 and 3.3 to 6.2 pixels of 64 at the nominal field of view."""
LOBE_SHARES = (0.5, 0.15, 0.35)
"""Share of lesions in each of the atlas's liver ellipses."""
VISIBLE = 0.5
"""A lesion is in a slice that cuts it at this share of its radius or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one kind of lesion differs from the liver around it; contrasts are grey levels, lowest to highest."""

    name: str
    contrast: tuple[float, float]
    core: float = 0.0
    """Grey of the core relative to the liver; 0 has none."""
    lobed: float = 0.0
    """Distance of the lobes from the centre, in radii: 0 is round."""
    softness: float = 1.2
    """Width of the edge in pixels."""
    share: float = 1.0


KINDS = (
    Kind(name="nodule", contrast=(0.22, 0.38), lobed=0.25, share=0.45),
    Kind(name="cyst", contrast=(0.12, 0.20), core=-0.42, share=0.3),
    Kind(name="infiltrate", contrast=(-0.34, -0.20), lobed=0.55, softness=2.2, share=0.25),
)
"""Nodules are bright, cysts dark with a bright rim, infiltrates dull, lobed and without a sharp edge."""

CORE = 0.74
"""Radius of a core relative to its lesion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesions:
    """The lesions of N images, in SLOTS columns.

    Shapes: kind int64 [N, SLOTS], an index into KINDS, -1 where none is in the slice; radius float32 [N, SLOTS].
    """

    layers: list[Layer]
    kind: NDArray[np.int64]
    radius: Floats

    def seen(self, slots: NDArray[np.bool_]) -> "Lesions":
        """Forget the lesions without a pixel of their own; slots is bool [N, SLOTS]."""
        return replace(self, kind=np.where(slots, self.kind, -1))


def draw_lesions(slices: Slices, liver: Layer, population: Population, rng: np.random.Generator) -> Lesions:
    """Draw who carries which lesions, and cut them at the slices."""
    kind = _draw_kinds(slices.patients, population.prevalence, rng)
    shape = kind.shape
    small = rng.random(shape) < population.small_lesions
    radius = np.where(small, rng.uniform(*SMALL, shape), rng.uniform(*LARGE, shape))
    of = slices.patient
    middle = np.bincount(of, slices.height) / np.bincount(of)
    height = middle[:, None] + 0.10 * rng.standard_normal(shape)
    cut = profile(slices.height[:, None], height[of], (0.3 + 2 * radius)[of])
    present = (kind[of] >= 0) & (cut >= VISIBLE)
    radii = np.where(present, radius[of] * cut, 0).astype(np.float32)
    kinds = np.where(present, kind[of], -1)
    ellipses = _place(slices, liver, radii, kinds, rng)
    strength = rng.random(shape)[of]
    layers = [each for slot in range(SLOTS) for each in _coats(slot, ellipses, kinds, strength, liver)]
    return Lesions(layers=layers, kind=kinds, radius=radii)


def _draw_kinds(patients: int, prevalence: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Give [M, SLOTS] kinds per patient, -1 for none; mostly one kind per patient."""
    shares = [kind.share for kind in KINDS]
    first = rng.choice(len(KINDS), (patients, 1), p=shares)
    other = rng.choice(len(KINDS), (patients, SLOTS), p=shares)
    again = rng.random((patients, SLOTS)) < SECOND_KIND
    again[:, 0] = False
    count = (rng.random(patients) < prevalence) * rng.choice(np.arange(1, SLOTS + 1), patients, p=COUNTS)
    return np.where(np.arange(SLOTS) < count[:, None], np.where(again, other, first), -1)


def _place(
    slices: Slices, liver: Layer, radii: Floats, kinds: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Give [N, SLOTS, 3 lobes, 5] ellipses, at a place in the liver that moves with it from slice to slice."""
    of, shape = slices.patient, (slices.patients, SLOTS)
    lobe = rng.choice(len(LOBE_SHARES), shape, p=LOBE_SHARES)[of]
    far, bearing = 0.75 * np.sqrt(rng.random(shape))[of], rng.uniform(0, 2 * np.pi, shape)[of]
    x, y, rx, ry, angle = np.moveaxis(np.take_along_axis(liver.ellipses, lobe[..., None], axis=1), -1, 0)
    u, v = far * np.cos(bearing) * rx, far * np.sin(bearing) * ry
    centre = np.stack([x + u * np.cos(angle) - v * np.sin(angle), y + u * np.sin(angle) + v * np.cos(angle)], axis=-1)
    lobed = np.array([kind.lobed for kind in KINDS])[kinds]
    turn = rng.uniform(0, 2 * np.pi, shape)[of][..., None] + 2 * np.pi / 3 * np.arange(3)
    offset = (lobed * radii)[..., None] * np.stack([np.cos(turn), np.sin(turn)])
    oval = np.exp(0.15 * rng.standard_normal((*shape, 3)))[of]
    size = (radii * (1 - 0.5 * lobed))[..., None]
    parts = [centre[..., None, 0] + offset[0], centre[..., None, 1] + offset[1], size * oval, size / oval, turn]
    ellipses = np.stack(parts, axis=-1)
    ellipses[lobed == 0] = ellipses[lobed == 0][:, :1]  # round: one lobe thrice
    return ellipses


def _coats(
    slot: int, ellipses: NDArray[np.float64], kinds: NDArray[np.int64], strength: NDArray[np.float64], liver: Layer
) -> list[Layer]:
    """Paint one slot: the lesion, then its core."""
    low, high = np.array([kind.contrast for kind in KINDS]).T[:, kinds[:, slot]]
    core = np.array([kind.core for kind in KINDS])[kinds[:, slot]]
    value = liver.value + low + (high - low) * strength[:, slot]
    shell = ellipses[:, slot].astype(np.float32)
    inner = shell[:, :1].copy()
    inner[..., 2:4] *= np.where(core == 0, 0, CORE)[:, None, None]
    coats = [("lesion", shell, value), ("core", inner, liver.value + core * (0.6 + 0.4 * strength[:, slot]))]
    softness = np.array([kind.softness for kind in KINDS], np.float32)[kinds[:, slot]]
    return [
        Layer(
            name=name,
            ellipses=shape,
            value=np.clip(grey, 0, 1).astype(np.float32),
            inside="cavity",
            softness=softness,
        )
        for name, shape, grey in coats
    ]
