"""Every stream: seeded, patients kept apart, nothing invented, and refused with a reason where it cannot be drawn."""

from dataclasses import replace

import numpy as np
import pytest

from common.data.base import Dataset
from common.errors import ConfigError, DataError, UnknownNameError
from simulations.streams import STREAMS
from simulations.streams.base import Draw, Ground, Stream, halve, pooled
from simulations.streams.make import SOURCE_STREAMS, load_stream
from tests.studies import made_dataset

CLEAN = tuple(name for name in STREAMS if name != "mixed")
EVERY = pytest.mark.parametrize("name", [*STREAMS, "gaussian_noise@2"])
BATCHES = pytest.mark.parametrize("batch", [1, 8, 32, 64])


WARDS = tuple(f"ward {number}" for number in range(12))


def wards(data: Dataset, first: int, last: int) -> Dataset:
    return pooled({WARDS[place]: data.subset(data.sites == place) for place in range(first, last)})


def ground(classes: tuple[str, ...] = ("a", "b"), **more: str) -> Ground:
    """The first six wards are the new site, the others the sources."""
    data = made_dataset(classes, side=8, sites=WARDS, **more)
    if data.labels is not None and data.labels.ndim == 2:
        data.labels[1::2] = 0  # without any finding
    return Ground(halve(wards(data, 0, 6), 0), halve(wards(data, 6, 12), 0))


def drawn(name: str, batch: int = 8, seed: int = 3, **more: str) -> Stream:
    return load_stream(name, "ct")(ground(**more), Draw(batch, seed, "ct"))


def keys(data: Dataset) -> list[bytes]:
    return [image.tobytes() for image in data.images]


@EVERY
@BATCHES
def test_the_same_draw_gives_the_same_stream_and_another_seed_another(name: str, batch: int) -> None:
    one, same, other = drawn(name, batch), drawn(name, batch), drawn(name, batch, seed=4)
    for part in ("arriving", "judged"):
        assert getattr(one, part).digest() == getattr(same, part).digest()
    assert keys(one.arriving) != keys(other.arriving)


@EVERY
def test_no_patient_is_judged_who_came(name: str) -> None:
    found = drawn(name)
    assert not set(found.arriving.patients) & set(found.judged.patients)
    assert len(found.judged)


@EVERY
@BATCHES
def test_batches_are_all_images_once_and_none_is_empty(name: str, batch: int) -> None:
    found = drawn(name, batch)
    rows = list(found.batches())
    assert np.array_equal(np.concatenate(rows), np.arange(len(found.arriving)))
    assert {len(each) for each in rows[:-1]} <= {batch}
    assert 1 <= len(rows[-1]) <= batch


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("kind", ["index", "findings"])
def test_clean_streams_invent_no_image_and_repeat_none(name: str, kind: str) -> None:
    found, base = drawn(name, kind=kind), ground(kind=kind)
    known = {image: place for half in (base.target, base.source) for place, image in enumerate(keys(half.arriving))}
    assert set(keys(found.arriving)) <= set(known)
    assert len(set(keys(found.arriving))) == len(found.arriving)
    half = base.source if name in (*SOURCE_STREAMS, "recurring") else base.target
    assert sorted(keys(found.judged)) == sorted(keys(half.judged))


@EVERY
def test_labels_stay_with_their_images(name: str) -> None:
    """Corruptions leave order and labels as the clean stream of the same seed has them."""
    found = drawn(name)
    base = ground()
    halves = {key: label for half in (base.target, base.source) for key, label in _labelled(half.arriving)}
    if name in CLEAN:
        assert all(halves[key] == label for key, label in _labelled(found.arriving))
    else:
        assert np.array_equal(found.arriving.labels, drawn("iid").arriving.labels)
        assert np.array_equal(found.judged.labels, drawn("iid").judged.labels)


def _labelled(data: Dataset) -> list[tuple[bytes, int]]:
    assert data.labels is not None
    return list(zip(keys(data), data.labels.tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("prevalance-0.1", UnknownNameError, "Did you mean 'prevalence-0.1'"),
        ("gosting@3", UnknownNameError, "Did you mean 'ghosting'"),
        ("ring@7", UnknownNameError, "severity of the stream 'ring@7'"),
        ("ring@", UnknownNameError, "Known: 1, 2, 3, 4, 5"),
        ("hair@2", ConfigError, "does not happen in ct"),
    ],
)
def test_what_is_no_stream_is_refused(name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        load_stream(name, "ct")


@pytest.mark.parametrize("name", ["mixed", "ring@2"])
def test_corruptions_need_a_modality(name: str) -> None:
    with pytest.raises(ConfigError, match="give --modality"):
        load_stream(name)(ground(), Draw(8, 0))


def test_a_site_of_one_class_has_no_prevalence_and_all_else() -> None:
    whole = ground()
    poor = Ground(halve(wards(made_dataset(one_class=WARDS[0], side=8, sites=WARDS), 0, 1), 0), whole.source)
    with pytest.raises(DataError, match="0 positive and 8 negative"):
        load_stream("prevalence-0.5")(poor, Draw(8, 0))
    for name in CLEAN:
        if not name.startswith("prevalence-0"):
            assert len(load_stream(name)(poor, Draw(8, 0)).arriving)


def test_one_patient_cannot_be_halved() -> None:
    data = made_dataset(side=8)
    with pytest.raises(DataError, match=r"1 patient\(s\)"):
        halve(data.subset(np.arange(2)), 0)


def test_without_labels_nothing_can_be_judged() -> None:
    with pytest.raises(DataError, match="there are no labels"):
        halve(replace(made_dataset(side=8), labels=None), 0)
