"""A body in cross section at the height of the liver: a table of organs, and patients drawn from it."""

from dataclasses import dataclass
from math import cos, inf, pi, sin

import numpy as np
from numpy.typing import NDArray

from common.data.phantom_shapes import WAVES, Floats, Layer

Doubles = NDArray[np.float64]
Ellipse = tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Organ:
    """One row of the atlas, for the mean patient; z runs from -1 (head) to 1 (feet).

    Lengths are in half image sides, greys in 0 to 1.
    """

    name: str
    ellipses: tuple[Ellipse, ...]
    grey: float
    spread: float = 0.02
    """Standard deviation of the grey between patients."""
    enhances: float = 0.0
    """Grey gained from the palest to the strongest contrast phase."""
    fat: float = 0.0
    """How much the radii grow with the patient's layer of fat."""
    moves: float = 0.015
    """Standard deviation of the centre between patients; a quarter of it between slices."""
    grows: float = 0.06
    """Standard deviation of the relative size between patients."""
    centre: float = 0.0
    """Height at which the organ is widest."""
    extent: float = inf
    """Half height: beyond it the organ is not in the slice."""
    share: float = 1.0
    """Share of patients who show it."""
    inside: str = ""
    softness: float = 1.2


def _ribs() -> tuple[Ellipse, ...]:
    angles = [side + turn for side in (0.0, pi) for turn in (-0.85, -0.38, 0.08, 0.52)]
    return tuple((0.70 * cos(a), 0.53 * sin(a), 0.062, 0.021, a + pi / 2) for a in angles)


ATLAS = (
    Organ(name="skin", ellipses=((0, 0, 0.785, 0.615, 0),), grey=0.40, fat=1.0, moves=0, grows=0),
    Organ(name="fat", ellipses=((0, 0, 0.765, 0.595, 0),), grey=0.19, fat=1.0, moves=0, grows=0, spread=0.01),
    Organ(name="wall", ellipses=((0, 0, 0.745, 0.575, 0),), grey=0.47, moves=0, grows=0),
    Organ(name="ribs", ellipses=_ribs(), grey=0.90, moves=0.012, grows=0.15, inside="wall"),
    Organ(name="cavity", ellipses=((0, -0.03, 0.665, 0.495, 0),), grey=0.21, moves=0, grows=0.01, spread=0.01),
    Organ(
        name="back muscle",
        ellipses=((-0.20, 0.46, 0.16, 0.11, 0.15), (0.20, 0.46, 0.16, 0.11, -0.15)),
        grey=0.48,
        inside="wall",
    ),
    Organ(
        name="spine", ellipses=((0, 0.32, 0.135, 0.105, 0), (0, 0.50, 0.035, 0.09, 0)), grey=0.86, spread=0.05,
        inside="wall",
    ),
    Organ(name="marrow", ellipses=((0, 0.31, 0.10, 0.075, 0),), grey=0.70, spread=0.05, inside="spine"),
    Organ(name="canal", ellipses=((0, 0.435, 0.045, 0.032, 0),), grey=0.36, inside="wall"),
    Organ(
        name="bowel",
        ellipses=((-0.10, -0.27, 0.13, 0.10, 0.4), (0.12, -0.22, 0.14, 0.10, -0.3), (0.34, -0.06, 0.12, 0.13, 0)),
        grey=0.42, spread=0.04, moves=0.05, grows=0.2, centre=0.9, extent=0.85, inside="cavity",
    ),
    Organ(
        name="stomach", ellipses=((0.30, -0.20, 0.24, 0.17, 0.5), (0.12, -0.26, 0.14, 0.10, 0.1)), grey=0.41,
        spread=0.03, moves=0.03, grows=0.12, centre=-0.4, extent=1.1, inside="cavity",
    ),
    Organ(
        name="gas", ellipses=((0.30, -0.29, 0.13, 0.065, 0.1),), grey=0.03, moves=0.04, grows=0.3, centre=-0.4,
        extent=1.0, share=0.7, inside="stomach",
    ),
    Organ(
        name="spleen", ellipses=((0.50, 0.14, 0.14, 0.23, 0.35), (0.44, 0.24, 0.13, 0.12, 0.3)), grey=0.60,
        enhances=0.16, moves=0.03, grows=0.13, centre=-0.3, extent=0.95, inside="cavity",
    ),
    Organ(
        name="kidneys", ellipses=((-0.33, 0.27, 0.125, 0.145, 0.5), (0.34, 0.29, 0.125, 0.145, -0.5)), grey=0.68,
        enhances=0.30, moves=0.025, grows=0.10, centre=0.6, extent=0.95, inside="cavity",
    ),
    Organ(
        name="renal sinus", ellipses=((-0.285, 0.25, 0.06, 0.05, 0.5), (0.295, 0.27, 0.06, 0.05, -0.5)), grey=0.28,
        moves=0.02, grows=0.2, centre=0.6, extent=0.75, inside="kidneys",
    ),
    Organ(
        name="liver",
        ellipses=((-0.36, -0.02, 0.315, 0.345, 0.12), (-0.10, -0.21, 0.33, 0.165, 0.16), (-0.40, 0.12, 0.23, 0.26, 0)),
        grey=0.55, spread=0.035, enhances=0.08, moves=0.02, grows=0.07, centre=-0.5, extent=2.2, inside="cavity",
    ),
    Organ(
        name="gallbladder", ellipses=((-0.16, -0.09, 0.085, 0.06, 0.8),), grey=0.36, moves=0.04, grows=0.25,
        centre=0.45, extent=0.55, share=0.8, inside="cavity",
    ),
    Organ(
        name="hepatic veins",
        ellipses=(
            (-0.44, -0.10, 0.15, 0.020, 0.55), (-0.36, -0.20, 0.12, 0.017, 1.25), (-0.16, -0.22, 0.14, 0.017, 0.25),
            (-0.46, 0.10, 0.13, 0.018, -0.35), (-0.28, 0.00, 0.11, 0.028, 0.15),
        ),
        grey=0.63, enhances=0.20, moves=0.05, grows=0.2, inside="liver", softness=1.0,
    ),
    Organ(
        name="vessel ends",
        ellipses=((-0.53, -0.05, 0.032, 0.028, 0), (-0.42, 0.20, 0.030, 0.034, 0), (-0.25, -0.24, 0.030, 0.030, 0)),
        grey=0.63, enhances=0.20, moves=0.10, grows=0.25, inside="liver", softness=1.0,
    ),
    Organ(name="vena cava", ellipses=((-0.115, 0.16, 0.075, 0.06, 0.2),), grey=0.58, enhances=0.22, inside="cavity"),
    Organ(name="aorta", ellipses=((0.055, 0.17, 0.066, 0.064, 0),), grey=0.70, enhances=0.34, inside="cavity"),
)  # fmt: skip
"""Organs in the order in which they are painted."""

AIR = 0.02
FRAMING = 0.93
"""Half side of the nominal field of view, in the atlas's half image sides: stout patients just fit."""
TEXTURE = 0.045
"""Relative standard deviation of the tissue's own speckle."""
GRAIN = 0.9
"""Its size: standard deviation of the blur, in pixels of 64 per side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Which slices of which patients: N images of M patients.

    Shapes: patient int64 [N], sorted; height float32 [N].
    """

    patient: NDArray[np.int64]
    height: Floats

    @property
    def patients(self) -> int:
        """How many patients there are."""
        return int(self.patient[-1]) + 1


def draw_slices(patients: int, rng: np.random.Generator) -> Slices:
    """Give every patient 1 to 4 slices, evenly apart, around a height of the patient's own."""
    counts = rng.integers(1, 5, patients)
    start = rng.uniform(-0.5, 0.5, patients) - 0.11 * (counts - 1)
    patient = np.repeat(np.arange(patients), counts)
    order = np.arange(len(patient)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Slices(patient=patient, height=(start[patient] + 0.22 * order).astype(np.float32))


def draw_organs(slices: Slices, rng: np.random.Generator) -> list[Layer]:
    """Draw the patients' organs and cut them at the slices."""
    fat = 0.015 + 0.11 * rng.beta(1.6, 2.6, slices.patients)
    phase = rng.uniform(-0.5, 0.5, slices.patients)
    return [_cut(organ, slices, fat, phase, stream) for organ, stream in zip(ATLAS, rng.spawn(len(ATLAS)), strict=True)]


def _cut(organ: Organ, slices: Slices, fat: Doubles, phase: Doubles, rng: np.random.Generator) -> Layer:
    of, many = slices.patient, len(organ.ellipses)
    ellipses = np.tile(np.asarray(organ.ellipses), (slices.patients, 1, 1))
    ellipses[..., :2] += organ.moves * rng.standard_normal((slices.patients, many, 2))
    ellipses[..., 2:4] *= np.exp(organ.grows * rng.standard_normal((slices.patients, many, 1)))
    ellipses[..., 2:4] += organ.fat * fat[:, None, None]
    ellipses[..., 4] += 2 * organ.grows * rng.standard_normal((slices.patients, many))
    ellipses[rng.random(slices.patients) >= organ.share, :, 2:4] = 0
    ellipses = ellipses[of]
    ellipses[..., :2] += organ.moves / 4 * rng.standard_normal((len(of), many, 2))
    ellipses[..., 2:4] *= profile(slices.height, organ.centre, organ.extent)[:, None, None]
    grey = organ.grey + organ.enhances * phase + organ.spread * rng.standard_normal(slices.patients)
    return Layer(
        name=organ.name, ellipses=ellipses.astype(np.float32), value=np.clip(grey, 0, 1)[of].astype(np.float32),
        inside=organ.inside, softness=organ.softness,
    )  # fmt: skip


def profile(height: Floats, centre: float | Doubles, extent: float | Doubles) -> Doubles:
    """Give the relative radius of an ellipsoid cut at `height`: 1 at its centre, 0 beyond its extent."""
    return np.sqrt(np.clip(1 - ((height.astype(np.float64) - centre) / extent) ** 2, 0, None))


def draw_pose(slices: Slices, field_of_view: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw how the patient lies (shift, turn, build) and is bent; see `warped_plane` for the shapes."""
    patients, count = slices.patients, len(slices.patient)
    turn = np.deg2rad(2.5 * rng.standard_normal(patients)[slices.patient] + 0.7 * rng.standard_normal(count))
    build = np.exp(0.04 * rng.standard_normal((patients, 2)) + 0.05 * rng.standard_normal((patients, 1)))
    scale = (FRAMING * field_of_view / build)[slices.patient]
    shift = 0.03 * rng.standard_normal((patients, 2))[slices.patient] + 0.008 * rng.standard_normal((count, 2))
    rows = [
        np.stack([shift[:, 0], np.cos(turn) * scale[:, 0], np.sin(turn) * scale[:, 0]], axis=1),
        np.stack([shift[:, 1], -np.sin(turn) * scale[:, 1], np.cos(turn) * scale[:, 1]], axis=1),
    ]
    wave = np.repeat([np.hypot(across, down) for across, down in WAVES], 2)
    size = 0.012 / wave
    bends = size * (
        rng.standard_normal((patients, 2, len(wave)))[slices.patient]
        + 0.15 * rng.standard_normal((count, 2, len(wave)))
    )
    return np.stack(rows, axis=1).astype(np.float32), bends.astype(np.float32)
