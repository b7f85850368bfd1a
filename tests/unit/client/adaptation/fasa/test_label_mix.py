"""The label mix: exact where answers are only confused, best on the simplex where nothing fits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.adaptation.fasa.label_mix import LEAST, kept, label_mix

BINARY = np.array([[0.9, 0.1], [0.3, 0.7]])


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.77, 0.98])
def test_it_finds_the_mix_that_made_the_answers(share):
    mix = np.array([1 - share, share])
    assert label_mix(BINARY, BINARY.T @ mix) == pytest.approx(mix, abs=1e-6)


def test_three_classes_come_back_too():
    confusion = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    mix = np.array([0.2, 0.5, 0.3])
    assert label_mix(confusion, confusion.T @ mix) == pytest.approx(mix, abs=1e-6)


def test_no_mix_on_a_grid_fits_better():
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, 201)
    for _ in range(30):
        confusion, answers = rng.dirichlet(np.ones(2), 2), rng.dirichlet(np.ones(2))
        errors = [((confusion.T @ np.array([1 - share, share]) - answers) ** 2).sum() for share in grid]
        best = grid[int(np.argmin(errors))]
        assert label_mix(confusion, answers)[1] == pytest.approx(np.clip(best, LEAST, 1 - LEAST), abs=0.006)


def test_a_model_that_knows_nothing_gives_some_mix_and_no_nan():
    found = label_mix(np.full((3, 3), 1 / 3), np.array([0.2, 0.3, 0.5]))
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1)


@given(arrays(np.float64, st.integers(2, 8), elements=st.floats(0, 1)))
def test_every_class_is_kept_and_the_sum_is_one(weights):
    mix = weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))
    found = kept(mix)
    assert found.sum() == pytest.approx(1)
    assert found.min() >= LEAST - 1e-12
    assert (np.diff(found[np.argsort(mix, kind="stable")]) >= -1e-12).all()
