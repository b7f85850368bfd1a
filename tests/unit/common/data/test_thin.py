"""So many images of each patient: which ones, in which order, and what is no patient's affair."""

from collections.abc import Callable

import numpy as np
import pytest

from common.data.base import Dataset
from common.data.thin import evenly, thin, thinned


@pytest.mark.parametrize(
    ("count", "most", "wanted"),
    [
        (5, 0, [0, 1, 2, 3, 4]),
        (3, 3, [0, 1, 2]),
        (2, 7, [0, 1]),
        (9, 1, [4]),
        (9, 3, [1, 4, 7]),
        (10, 4, [1, 3, 6, 8]),
    ],
)
def test_evenly_by_hand(count: int, most: int, wanted: list[int]) -> None:
    assert evenly(count, most).tolist() == wanted


def test_each_choice_holds_the_middle_of_an_equal_share() -> None:
    for count in range(1, 40):
        for most in range(1, count + 1):
            chosen = evenly(count, most)
            assert len(chosen) == most
            for index, position in enumerate(chosen.tolist()):
                assert position <= (index + 0.5) * count / most < position + 1


def test_thinned_equals_a_loop_over_the_patients() -> None:
    rng = np.random.default_rng(0)
    sites, patients = rng.choice(["b", "a"], 80), rng.choice(["p", "q", "r"], 80)
    wanted = []
    for site in "ab":
        for patient in "pqr":
            rows = [row for row in range(80) if (sites[row], patients[row]) == (site, patient)]
            wanted += [rows[position] for position in evenly(len(rows), 4).tolist()]
    assert thinned(sites, patients, 4).tolist() == sorted(wanted)
    assert thinned(sites, patients, 0).tolist() == list(range(80))
    assert thinned(sites[:0], patients[:0], 4).tolist() == []


def test_equal_names_at_two_sites_are_two_patients(make_dataset: Callable[..., Dataset]) -> None:
    dataset = thin(make_dataset(patients=5, sites=2), 1)
    assert len(dataset) == 10
    assert thin(dataset, 1).digest() == dataset.digest()
    assert thin(dataset, 0) is dataset
