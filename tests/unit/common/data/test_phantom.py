"""The embedded data set: truth, seeds, patients and every knob of its populations."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from common.config import DataSection, load_run_config
from common.data import DATASETS
from common.data.base import Dataset
from common.data.phantom import draw_cohort, images_per_second, phantom, phantom_of
from common.data.phantom_lesions import KINDS
from common.data.phantom_marker import footprint
from common.data.phantom_population import Population
from common.data.phantom_scanner import Scanner
from common.data.phantom_sites import SITES, Site
from common.errors import ConfigError

PLAIN = Site(name="plain", scanner=Scanner(), population=Population())


def settings(**changes: object) -> DataSection:
    values = {"patients-per-site": 12, "image-size": 32, **{k.replace("_", "-"): v for k, v in changes.items()}}
    return load_run_config({f"data.{key}": value for key, value in values.items()}).data


def site(name: str = "plain", **population: float) -> Site:
    return Site(name=name, scanner=Scanner(), population=Population(**population))


def ill_patients(dataset: Dataset) -> np.ndarray:
    """One bool per patient: a lesion in any slice."""
    _, patient = np.unique(dataset.patients, return_inverse=True)
    return np.bincount(patient, dataset.masks.any(axis=(1, 2))) > 0


@pytest.fixture(scope="module")
def default() -> Dataset:
    return phantom(settings())


def test_it_is_the_registered_default_and_well_formed(default):
    assert DATASETS.load("phantom") is phantom
    default.check()
    assert default.images.dtype == np.uint8
    assert default.images.shape[1:] == (1, 32, 32)
    assert default.labels.dtype == np.int64
    assert default.classes == ("no lesion", "lesion")
    assert default.mask_classes == ("background", "lesion")
    assert default.site_names == tuple(each.name for each in SITES)
    assert set(np.unique(default.sites)) == set(range(len(SITES)))


@pytest.mark.parametrize(("size", "side"), [(0, 64), (48, 48), (16, 16), (97, 97)])
def test_image_size(size, side):
    dataset = phantom(settings(image_size=size, patients_per_site=4))
    assert dataset.images.shape[2:] == dataset.masks.shape[1:] == (side, side)


def test_same_seed_gives_the_same_bytes_and_another_seed_others(default):
    assert phantom(settings()).digest() == default.digest()
    assert phantom(settings(seed=8)).digest() != default.digest()


def test_a_site_does_not_depend_on_the_others(default):
    alone = phantom_of(settings(), SITES[2:3])
    among = default.subset(default.sites == 2)
    for column in ("images", "masks", "labels", "patients"):
        assert np.array_equal(getattr(alone, column), getattr(among, column))


def test_images_do_not_depend_on_how_many_are_painted_at_once(monkeypatch):
    whole = draw_cohort(SITES[3], 8, 32, 1)
    monkeypatch.setattr("common.data.phantom.PIXELS_AT_ONCE", 3 * 32 * 32)
    parts = draw_cohort(SITES[3], 8, 32, 1)
    assert np.array_equal(whole.images, parts.images)
    assert np.array_equal(whole.masks, parts.masks)


def test_patients_have_one_to_four_images_and_one_site():
    dataset = phantom(settings(patients_per_site=60, image_size=16))
    names, counts = np.unique(dataset.patients, return_counts=True)
    assert len(names) == 60 * len(SITES)
    assert set(counts) == {1, 2, 3, 4}
    homes = np.unique(np.stack([dataset.sites, np.unique(dataset.patients, return_inverse=True)[1]]), axis=1)
    assert homes.shape[1] == len(names)


def test_slices_of_a_patient_look_more_alike_than_patients():
    cohort = draw_cohort(PLAIN, 80, 32, 3)
    images, patient = cohort.images.astype(float), cohort.slices.patient
    follows = patient[1:] == patient[:-1]
    distance = np.abs(images[1:] - images[:-1]).mean(axis=(1, 2))
    assert distance[follows].mean() < 0.75 * distance[~follows].mean()


@pytest.mark.parametrize("size", [16, 32, 48, 64])
def test_without_label_noise_labels_and_masks_agree(size):
    for label in ("lesion", "kind", "findings"):
        dataset = phantom_of(settings(label=label, image_size=size, patients_per_site=100), [PLAIN])
        seen = dataset.masks.any(axis=(1, 2))
        labels = dataset.labels if dataset.labels.ndim == 1 else dataset.labels.any(axis=1)
        assert np.array_equal(labels > 0, seen)


def test_the_three_kinds_of_label_tell_one_story():
    lesion, kind, findings = (
        phantom_of(settings(label=label, patients_per_site=200, image_size=16), [PLAIN]).labels
        for label in ("auto", "kind", "findings")
    )
    assert np.array_equal(lesion, kind > 0)
    assert np.array_equal(lesion, findings.max(axis=1))
    assert set(np.unique(kind)) == set(range(len(KINDS) + 1))
    ill = kind > 0
    assert (findings[ill, kind[ill] - 1] == 1).all()
    assert findings.dtype == np.uint8
    assert findings.sum(axis=1).max() > 1


def test_unknown_label_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'kinds'.*Did you mean 'kind'.*Allowed: auto, lesion, kind, findings"):
        phantom(settings(label="kinds"))


def test_images_too_small_for_lesions_are_refused():
    with pytest.raises(ConfigError, match=r"'data.image-size' is 15.*Allowed is 16"):
        phantom(settings(image_size=15))


@pytest.mark.parametrize("prevalence", [0.0, 0.2, 0.7, 1.0])
def test_prevalence_within_binomial_bounds(prevalence):
    patients = 600
    dataset = phantom_of(
        settings(patients_per_site=patients, image_size=16, label="lesion"), [site(prevalence=prevalence)]
    )
    # A patient may be ill above or below all of her slices, so that a few ill patients show nothing.
    bound = 4 * np.sqrt(prevalence * (1 - prevalence) / patients)
    share = ill_patients(dataset).mean()
    assert 0.93 * prevalence - bound <= share <= prevalence + bound


def test_small_lesions_knob_shrinks_lesions():
    areas = [
        draw_cohort(site(small_lesions=share, prevalence=1), 150, 64, 1).masks.sum(axis=(1, 2)).mean()
        for share in (0.0, 0.5, 1.0)
    ]
    assert areas[0] > areas[1] > areas[2] > 0


@pytest.mark.parametrize(("label", "count"), [("lesion", 2), ("kind", 4), ("findings", 3)])
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_label_noise_changes_labels_at_its_rate_and_nothing_else(label, count, rate):
    chosen = settings(label=label, patients_per_site=500, image_size=16)
    clean, noisy = (phantom_of(chosen, [site(label_noise=r)]) for r in (0.0, rate))
    assert np.array_equal(clean.images, noisy.images)
    assert np.array_equal(clean.masks, noisy.masks)
    changed = clean.labels != noisy.labels
    assert changed.mean() == pytest.approx(rate, abs=4 * np.sqrt(rate / changed.size))
    assert len(noisy.classes) == count
    noisy.check()


def test_the_marker_follows_the_label_only_where_told():
    def marked(each: Site) -> tuple[np.ndarray, np.ndarray]:
        cohort = draw_cohort(each, 150, 48, 5)
        corner = cohort.images[:, footprint(48, 48)]
        return (corner == corner[:, :1]).all(axis=1) & (corner[:, 0] > 200), cohort.masks.any(axis=(1, 2))

    for each in SITES:
        marks, ill = marked(each)
        told = each.population
        for group, chance in ((ill, told.marker_with_lesion), (~ill, told.marker_without_lesion)):
            bound = 4 * np.sqrt(chance * (1 - chance) / group.sum())
            assert abs(marks[group].mean() - chance) <= bound, each.name
    shortcuts = [
        each.name for each in SITES if each.population.marker_with_lesion != each.population.marker_without_lesion
    ]
    assert shortcuts == ["lakeside"]


@pytest.mark.parametrize("side", [16, 32, 48, 64, 128])
def test_the_marker_lies_in_the_corner_at_every_size(side):
    rows, columns = footprint(side, side).nonzero()
    assert len(rows) == 16 * max(1, round(side / 64)) ** 2  # the letter has 16 cells
    assert rows.max() < max(8, 0.2 * side)
    assert columns.min() >= min(side - 8, 0.8 * side)


def test_field_of_view_shrinks_the_body_and_moves_the_masks_with_it():
    sides = {}
    for ratio in (1.0, 1.3):
        cohort = draw_cohort(replace(PLAIN, scanner=Scanner(field_of_view=ratio)), 60, 64, 2)
        sides[ratio] = (cohort.images > 25).mean(), cohort.masks.mean()
    for whole, wide in zip(sides[1.0], sides[1.3], strict=True):
        assert wide == pytest.approx(whole / 1.3**2, rel=0.12)


def _contrast(kind: str) -> Callable[[], float]:
    def measure() -> float:
        cohort = draw_cohort(site(prevalence=1, small_lesions=0), 150, 64, 4)
        index = [each.name for each in KINDS].index(kind)
        only = (cohort.lesions.kind == index).any(axis=1) & np.isin(cohort.lesions.kind, (-1, index)).all(axis=1)
        images, masks = cohort.images[only].astype(float), cohort.masks[only] == 1
        return images[masks].mean() - np.median(images[images > 90])

    return measure


def test_nodules_are_brighter_and_infiltrates_duller_than_their_surroundings():
    assert _contrast("nodule")() > 15
    assert _contrast("infiltrate")() < -10


@pytest.mark.parametrize(("knob", "value"), [("prevalence", 1.2), ("label_noise", 0.6), ("small_lesions", -0.1)])
def test_a_population_knob_out_of_range_is_refused(knob, value):
    with pytest.raises(ConfigError, match=f"Population: {knob} .*Allowed is"):
        Population(**{knob: value})


def test_measuring_speed_counts_the_images_drawn(default):
    count, rate = images_per_second(settings())
    assert count == len(default)
    assert rate > 0
