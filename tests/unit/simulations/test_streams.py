"""What each stream's order promises: multiset, share, runs of labels and patients, regimes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.base import Dataset
from common.errors import DataError
from common.seeds import derive
from simulations.corruptions.corrupt import corrupt, of_modality
from simulations.streams.base import Draw, Ground, Halves, batches, halve, kinds, pooled, positives
from simulations.streams.make import load_stream
from simulations.streams.orders import Prevalence


def dataset(labels: np.ndarray, patients: np.ndarray, classes: int = 2) -> Dataset:
    """Give images whose first pixels tell their number."""
    images = np.zeros((len(labels), 1, 8, 8), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(len(labels)), 256)
    return Dataset(
        name="numbered",
        images=images,
        labels=labels.astype(np.int64),
        patients=np.array([f"p{patient}" for patient in patients]),
        sites=np.zeros(len(labels), np.int64),
        site_names=("here",),
        classes=tuple(f"c{number}" for number in range(classes)),
    )


def numbers(data: Dataset) -> np.ndarray:
    return data.images[:, 0, 0, 0].astype(int) * 256 + data.images[:, 0, 0, 1]


def grounds(data: Dataset) -> Ground:
    halves = Halves(data, data)
    return Ground(halves, halves)


made = st.tuples(st.integers(6, 80), st.integers(2, 12), st.integers(0, 10**6))


def random_data(count: int, patients: int, seed: int, classes: int = 2) -> Dataset:
    random = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(patients), random.integers(patients, size=count)])
    return dataset(random.integers(classes, size=len(owner)), owner, classes)


@settings(max_examples=60, deadline=None)
@given(made)
def test_halves_share_no_patient_lose_no_image_and_split_every_stratum(wish: tuple[int, int, int]) -> None:
    data = random_data(*wish)
    found = halve(data, wish[2])
    ours, theirs = set(found.arriving.patients.tolist()), set(found.judged.patients.tolist())
    assert not ours & theirs
    assert sorted([*numbers(found.arriving), *numbers(found.judged)]) == list(range(len(data)))
    worst = {patient: int(kinds(data)[data.patients == patient].max()) for patient in set(data.patients.tolist())}
    for stratum in (0, 1):
        assert abs(sum(worst[p] == stratum for p in ours) - sum(worst[p] == stratum for p in theirs)) <= 1
    assert abs(len(ours) - len(theirs)) <= 1
    shuffled = data.subset(np.random.default_rng(1).permutation(len(data)))
    assert set(halve(shuffled, wish[2]).arriving.patients.tolist()) == ours


@settings(max_examples=60, deadline=None)
@given(made, st.sampled_from([0.1, 0.5, 0.9]))
def test_prevalence_is_met_to_half_an_image_and_no_larger_stream_would_do(
    wish: tuple[int, int, int], share: float
) -> None:
    data = random_data(*wish)
    ill, well = int(positives(data).sum()), int((~positives(data)).sum())
    try:
        found = Prevalence(share)(grounds(data), Draw(8, wish[2])).arriving
    except DataError:
        assert min(ill / share, well / (1 - share)) < max(0.5 / share, 0.5 / (1 - share)) + 1
        return
    got = int(positives(found).sum())
    assert abs(got - share * len(found)) <= 0.5
    assert len(set(numbers(found).tolist())) == len(found)
    bigger = len(found) + 1
    assert share * bigger > ill or (1 - share) * bigger > well


@settings(max_examples=40, deadline=None)
@given(made, st.integers(2, 4))
def test_iid_sorted_and_clustered_are_permutations_in_the_order_promised(
    wish: tuple[int, int, int], classes: int
) -> None:
    data = random_data(*wish, classes=classes)
    for name in ("iid", "label-sorted", "patient-clustered"):
        found = load_stream(name)(grounds(data), Draw(8, wish[2])).arriving
        assert sorted(numbers(found).tolist()) == list(range(len(data)))
        if name == "label-sorted":
            assert (np.diff(kinds(found)) >= 0).all()
        if name == "patient-clustered":
            changes = int((found.patients[1:] != found.patients[:-1]).sum())
            assert changes == len(set(data.patients.tolist())) - 1
            for patient in set(data.patients.tolist()):
                assert (np.diff(numbers(found)[found.patients == patient]) > 0).all()


def test_several_classes_count_all_but_the_most_frequent_as_positive() -> None:
    data = dataset(np.array([2] * 6 + [0] * 3 + [1] * 3), np.arange(12), classes=3)
    assert positives(data).tolist() == [False] * 6 + [True] * 6
    found = load_stream("prevalence-0.5")(grounds(data), Draw(4, 0)).arriving
    assert sorted(kinds(found).tolist()) == [0] * 3 + [1] * 3 + [2] * 6
    two = dataset(np.array([1] * 6 + [0] * 3), np.arange(9))
    assert positives(two).tolist() == [True] * 6 + [False] * 3, "of two classes the second is positive, however many"


def test_a_passing_shift_has_three_parts_of_one_length() -> None:
    home, away = dataset(np.arange(21) % 2, np.arange(21)), dataset(np.arange(8) % 2, np.arange(8))
    away = replace(away, images=away.images + np.uint8(100))
    found = load_stream("recurring")(Ground(Halves(away, away), Halves(home, home)), Draw(4, 0))
    number = numbers(found.arriving)
    assert len(number) == 24
    assert (number[8:16] > 255).all()
    first, last = number[:8].tolist(), number[16:].tolist()
    assert max(first + last) <= 20
    assert not set(first) & set(last)
    assert found.judged is home


def test_each_batch_of_a_mixture_has_one_corruption_and_all_come() -> None:
    """Oracle: corrupting the clean stream's batch by the one corruption that fits."""
    names = of_modality("ct")
    random = np.random.default_rng(0)
    data = dataset(np.arange(4 * len(names)) % 2, np.arange(4 * len(names)))
    data = replace(data, images=random.integers(30, 220, (len(data), 1, 32, 32), dtype=np.uint8))
    draw = Draw(4, 5, "ct")
    found, clean = load_stream("mixed")(grounds(data), draw), load_stream("iid")(grounds(data), draw)
    seen = []
    for number, rows in enumerate(batches(len(data), 4)):
        seed = derive(5, "arriving", number)
        fits = [
            name
            for name in names
            if np.array_equal(corrupt(clean.arriving.images[rows], name, 3, seed), found.arriving.images[rows])
        ]
        assert len(fits) == 1
        seen += fits
    assert sorted(seen) == sorted(names)
    assert not np.array_equal(found.judged.images, clean.judged.images)


def test_a_corrupted_stream_differs_between_severities_in_severity_alone() -> None:
    data = random_data(20, 5, 0)
    data = replace(data, images=np.full_like(data.images, 100))
    clean = load_stream("iid")(grounds(data), Draw(8, 2)).arriving.images.astype(float)
    far = []
    for severity in range(1, 6):
        found = load_stream(f"gaussian_noise@{severity}")(grounds(data), Draw(8, 2, "ct"))
        far.append((found.arriving.images - clean) / (np.abs(found.arriving.images - clean).max() + 1e-9))
    assert np.corrcoef(far[1].ravel(), far[4].ravel())[0, 1] > 0.9


def test_pooled_sites_keep_equal_names_apart() -> None:
    data = random_data(10, 4, 0)
    assert len(set(pooled({"a": data, "b": data}).patients.tolist())) == 2 * len(set(data.patients.tolist()))


def test_over_many_small_sites_neither_half_is_the_ill_one() -> None:
    data = dataset(np.array([0, 1]), np.arange(2))
    ill = [int(kinds(halve(data, seed).judged)[0]) for seed in range(200)]
    assert 70 < sum(ill) < 130


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_too_few_for_a_share_is_refused(share: float) -> None:
    data = dataset(np.array([0, 1, 1, 0]), np.arange(4))
    with pytest.raises(DataError, match="Needed are enough of both"):
        Prevalence(share)(grounds(data), Draw(2, 0))
