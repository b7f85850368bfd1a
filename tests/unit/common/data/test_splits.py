"""Splits: disjoint by patient, in the shares promised, drawn by names and seed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.base import Dataset
from common.data.splits import cap_site, split_site
from common.errors import DataError


def one_site(patients: list[str], labels: list[int] | None = None, splits: list[int] | None = None) -> Dataset:
    count = len(patients)
    return Dataset(
        name="tiny",
        images=np.zeros((count, 1, 2, 2), dtype=np.uint8),
        patients=np.array(patients),
        sites=np.zeros(count, dtype=np.int64),
        site_names=("a",),
        labels=None if labels is None else np.array(labels),
        splits=None if splits is None else np.array(splits, dtype=np.int8),
        classes=("0", "1", "2"),
    )


def names(dataset: Dataset, seed: int = 0, site: str = "a") -> list[set[str]]:
    return [set(dataset.patients[rows]) for rows in split_site(dataset, np.arange(len(dataset)), site, seed)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=3, max_size=90), st.integers(0, 99))
def test_every_image_in_one_split_and_every_patient_in_one(pairs: list[tuple[int, int]], seed: int) -> None:
    dataset = one_site([f"p{patient}" for patient, _ in pairs], [label for _, label in pairs])
    if len(set(dataset.patients)) < 3:
        with pytest.raises(DataError, match="need one each"):
            names(dataset)
        return
    rows = split_site(dataset, np.arange(len(dataset)), "a", seed)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(dataset)))
    train, val, test = (set(dataset.patients[part]) for part in rows)
    assert all([train, val, test])
    assert sum(map(len, (train, val, test))) == len(train | val | test)


@pytest.mark.parametrize(("patients", "expected"), [(3, (1, 1, 1)), (20, (12, 3, 5)), (100, (60, 15, 25))])
def test_shares_are_60_15_25(patients: int, expected: tuple[int, int, int]) -> None:
    assert tuple(map(len, names(one_site([f"p{index}" for index in range(patients)])))) == expected


def test_order_of_images_does_not_matter_but_seed_and_site_do() -> None:
    patients = [f"p{index}" for index in range(40)]
    straight = names(one_site(patients))
    assert names(one_site(patients[::-1])) == straight
    assert names(one_site(patients), seed=1) != straight
    assert names(one_site(patients), site="b") != straight


def test_rare_label_stands_in_train_and_test() -> None:
    dataset = one_site([f"p{index}" for index in range(30)], [1, 1] + [0] * 28)
    for seed in range(20):
        train, _, test = split_site(dataset, np.arange(30), "a", seed)
        assert dataset.labels is not None
        assert dataset.labels[train].max() == dataset.labels[test].max() == 1


def test_patients_are_divided_by_their_worst_label() -> None:
    """20 patients with one severe and one harmless image each, 20 without: each kind is divided 12/3/5."""
    patients = [f"s{index}" for index in range(20)] * 2 + [f"h{index}" for index in range(20)]
    split = names(one_site(patients, [2] * 20 + [0] * 40))
    assert [sum(name.startswith("s") for name in part) for part in split] == [12, 3, 5]


def test_a_site_with_one_class_is_divided_all_the_same() -> None:
    assert [len(part) for part in names(one_site([f"p{index}" for index in range(20)], [1] * 20))] == [12, 3, 5]


def test_official_division_is_kept() -> None:
    dataset = one_site(list("abcdef"), splits=[2, 0, 1, 0, 2, 0])
    assert names(dataset) == [{"b", "d", "f"}, {"c"}, {"a", "e"}]


def test_official_division_without_val_takes_a_fifth_of_train() -> None:
    patients = [f"p{index}" for index in range(25)]
    train, val, test = names(one_site(patients, splits=[0] * 20 + [2] * 5))
    assert (len(train), len(val)) == (16, 4)
    assert test == set(patients[20:])


@pytest.mark.parametrize(("splits", "missing"), [([0, 0, 0, 1], "test"), ([2, 2, 2, 2], "train and val")])
def test_official_division_without_train_or_test_is_refused(splits: list[int], missing: str) -> None:
    with pytest.raises(DataError, match=f"without {missing}"):
        names(one_site(list("abcd"), splits=splits))


def test_patient_in_two_official_splits_is_counted_not_named() -> None:
    dataset = one_site(["Eva", "Eva", "Ada", "Ida"], splits=[0, 2, 1, 0])
    with pytest.raises(DataError, match="1 of 3 patients stand in two splits") as caught:
        dataset.check()
    assert "Eva" not in str(caught.value)


def test_cap_keeps_whole_patients_and_the_share_of_labels() -> None:
    patients = [f"p{index // 2:02}" for index in range(200)]
    dataset = one_site(patients, [int(index < 60) for index in range(200)])
    rows = cap_site(dataset, np.arange(200), "a", 0, 81)
    kept = dataset.subset(rows)
    assert len(kept) == 80
    assert set(np.unique(kept.patients, return_counts=True)[1]) == {2}
    assert kept.labels is not None
    assert kept.labels.sum() == 24
    assert rows.tolist() == sorted(rows.tolist())


def test_cap_of_zero_keeps_all_and_a_tiny_cap_is_refused() -> None:
    dataset = one_site(list("aabbccdd"))
    assert len(cap_site(dataset, np.arange(8), "a", 0, 0)) == 8
    with pytest.raises(DataError, match=r"holds 1 whole patients.*6 images would do"):
        cap_site(dataset, np.arange(8), "a", 0, 3)
