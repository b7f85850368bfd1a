"""The embedded data set: procedural cross sections of the liver from several hospitals, with true lesion masks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.config import DataSection
from common.data.base import Dataset
from common.data.phantom_anatomy import AIR, FRAMING, GRAIN, TEXTURE, Slices, draw_organs, draw_pose, draw_slices
from common.data.phantom_labels import Labels, joined, labels_named, lesion, misread
from common.data.phantom_lesions import SLOTS, Lesions, draw_lesions
from common.data.phantom_marker import stamp
from common.data.phantom_physics import REFERENCE_SIDE, psf_blur
from common.data.phantom_population import Population
from common.data.phantom_scanner import STAGES, Scanner, acquire, quantise
from common.data.phantom_shapes import Floats, Layer, Painter, warped_plane
from common.data.phantom_sites import SITES, Site
from common.errors import ConfigError
from common.seeds import generator

DEFAULT_SIDE = 64
SMALLEST_SIDE = 16
PIXELS_AT_ONCE = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The images of one site, before labels are read.

    Shapes: images uint8 [N, H, W]; masks uint8 [N, H, W], 1 on lesions; slices and lesions of N images.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    slices: Slices
    lesions: Lesions


def phantom(settings: DataSection) -> Dataset:
    """Draw all hospitals of SITES.

    `seed`, `patients_per_site`, `image_size` (0 is 64) and `label` (auto, lesion, kind or findings) count. A site's
    images depend on the seed and its own name, not on the other sites; masks are the truth, labels may be misread.

    Raises:
        ConfigError: The images would be too small for the lesions, or the kind of label is not known.
    """
    return phantom_of(settings, SITES)


def phantom_of(settings: DataSection, sites: Sequence[Site]) -> Dataset:
    """Draw chosen hospitals; otherwise as `phantom`."""
    side = settings.image_size or DEFAULT_SIDE
    if side < SMALLEST_SIDE:
        raise ConfigError(
            f"setting 'data.image-size' is {side} for the phantom; its lesions would be smaller than a pixel. Allowed "
            f"is {SMALLEST_SIDE} to 1024, or 0 for {DEFAULT_SIDE}. Choose a larger size."
        )
    read, classes = labels_named(settings.label)
    cohorts = [draw_cohort(site, settings.patients_per_site, side, settings.seed) for site in sites]
    labels: list[Labels] = [
        misread(read(cohort.lesions), site.population.label_noise, len(classes), _rng(settings.seed, site, "labels"))
        for site, cohort in zip(sites, cohorts, strict=True)
    ]
    patients = [f"{s.name}-{i:05d}" for s, cohort in zip(sites, cohorts, strict=True) for i in cohort.slices.patient]
    return Dataset(
        name="phantom",
        images=np.concatenate([cohort.images for cohort in cohorts])[:, None],
        masks=np.concatenate([cohort.masks for cohort in cohorts]),
        labels=joined(labels),
        patients=np.array(patients),
        sites=np.repeat(np.arange(len(sites)), [len(cohort.images) for cohort in cohorts]),
        site_names=tuple(site.name for site in sites),
        classes=classes,
        mask_classes=("background", "lesion"),
        licence="CC0-1.0: drawn by a program, no patient",
    )


def draw_cohort(site: Site, patients: int, side: int, seed: int) -> Cohort:
    """Draw one hospital's patients and scan them."""
    slices = draw_slices(patients, _rng(seed, site, "slices"))
    organs = draw_organs(slices, _rng(seed, site, "organs"))
    liver = next(layer for layer in organs if layer.name == "liver")
    lesions = draw_lesions(slices, liver, site.population, _rng(seed, site, "lesions"))
    pose = draw_pose(slices, site.scanner.field_of_view, _rng(seed, site, "pose"))
    images, truth = _scan([*organs, *lesions.layers], pose, site.scanner, side, _rng(seed, site, "scan"))
    lesions = lesions.seen(np.asarray(truth.any(axis=(2, 3)), bool).T)
    images = stamp(images, _marked(lesions, site.population, _rng(seed, site, "marker")))
    return Cohort(images=images, masks=np.asarray(truth.any(axis=0), np.uint8), slices=slices, lesions=lesions)


def _scan(
    layers: list[Layer], pose: tuple[Floats, Floats], scanner: Scanner, side: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Paint and acquire: uint8 [N, H, W], and bool [SLOTS, N, H, W], the outline of each lesion.

    Some images at a time so that they stay in the processor's cache.
    """
    affine, bends = pose
    count, pixel = len(affine), 2 * FRAMING * scanner.field_of_view / side
    painter = Painter(layers, pixel, AIR)
    speckle, *streams = rng.spawn(1 + len(STAGES))
    images, truth = np.empty((count, side, side), np.uint8), np.empty((SLOTS, count, side, side), bool)
    step = max(1, PIXELS_AT_ONCE // side**2)
    for start in range(0, count, step):
        part = slice(start, start + step)
        monomials = warped_plane(side, affine[part], bends[part])
        clean, lesions = painter.paint(part, monomials)
        clean = _textured(clean.reshape(-1, side, side), speckle)
        images[part] = quantise(acquire(clean, scanner, streams))
        truth[:, part] = lesions.reshape(SLOTS, -1, side, side)
    return images, truth


def _textured(images: Floats, rng: np.random.Generator) -> Floats:
    """Give tissue its speckle: a multiplicative grain, white noise blurred to GRAIN pixels of 64.

    A Gaussian blur of σ pixels leaves white noise the standard deviation 1 / (2·√π·σ).
    """
    sigma = GRAIN * images.shape[-1] / REFERENCE_SIDE
    grain = psf_blur(rng.standard_normal(images.shape, dtype=np.float32), GRAIN, rng)
    grain *= np.float32(TEXTURE * max(1.0, 2 * np.sqrt(np.pi) * sigma))
    grain += 1
    return np.multiply(images, grain, out=grain)


def _marked(lesions: Lesions, population: Population, rng: np.random.Generator) -> NDArray[np.bool_]:
    ill = lesion(lesions) == 1
    chance = np.where(ill, population.marker_with_lesion, population.marker_without_lesion)
    return rng.random(len(ill)) < chance


def _rng(seed: int, site: Site, purpose: str) -> np.random.Generator:
    return generator(seed, "phantom", site.name, purpose)


def images_per_second(settings: DataSection) -> tuple[int, float]:
    """Draw the phantom once and say how many images that were and how many were drawn per second."""
    start = time.perf_counter()
    count = len(phantom(settings))
    return count, count / (time.perf_counter() - start)
