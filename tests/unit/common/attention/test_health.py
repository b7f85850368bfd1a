"""Health statistics by hand, their sums against scipy, and what one patient can change."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import ttest_ind_from_stats

from common.attention.health import (
    HealthMeter,
    branch_collapse,
    collapse,
    health_names,
    placed_mass,
    saturation,
    sink,
)
from common.attention.health_sums import HealthSums
from common.config import ModelSection
from common.errors import DataError, ProtocolError
from common.models import MODELS
from tests.fed_items import fed, noisy


def test_saturation_counts_shut_and_open_gates():
    gates = torch.tensor([[0.01, 0.5, 0.99, 0.96], [0.05, 0.5, 0.6, 0.95]])
    torch.testing.assert_close(saturation(gates), torch.tensor([0.75, 0.0]))


def test_collapse_is_that_of_the_sharpest_head():
    flat, sharp = torch.full((5, 4), 0.25), torch.eye(4)[[0, 1, 2, 3, 0]]
    rows = torch.stack([torch.stack([flat, sharp]), torch.stack([flat, flat])])  # [2, heads, 5, 4]
    torch.testing.assert_close(collapse(rows), torch.tensor([1.0, 0.0]), atol=1e-5, rtol=0)
    windows = rows[:, None].expand(2, 3, 2, 5, 4)
    torch.testing.assert_close(collapse(windows), torch.tensor([1.0, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(collapse(torch.eye(4)[:2]), torch.ones(2), atol=1e-5, rtol=0)


def test_branch_collapse_runs_from_alike_to_one_alone():
    weights = torch.tensor([[[0.5], [0.5]], [[1.0], [0.0]]])
    torch.testing.assert_close(branch_collapse(weights), torch.tensor([0.0, 1.0]))


def test_a_sink_receives_what_all_others_give():
    rows = torch.zeros(1, 2, 3, 3)
    rows[..., 1] = 1
    torch.testing.assert_close(sink(rows), torch.ones(1))


def test_mass_in_ring_and_corners_by_hand():
    uniform = placed_mass(torch.ones(1, 16, 16))
    torch.testing.assert_close(uniform, torch.tensor([[28 / 64, *[4 / 64] * 4]]))
    corner = torch.zeros(1, 16, 16)
    corner[0, :2, 12:14] = 1  # upper right: cells (0, 6)
    torch.testing.assert_close(placed_mass(corner), torch.tensor([[1.0, 0, 1, 0, 0]]), atol=1e-5, rtol=0)


VALUES = hnp.arrays(np.float64, (12, 3), elements=st.floats(0, 1))
LABELS = st.lists(st.integers(0, 2), min_size=12, max_size=12)
PATIENTS = st.lists(st.sampled_from("abcde"), min_size=12, max_size=12)


@given(VALUES, LABELS, PATIENTS)
def test_one_patient_changes_each_sum_by_at_most_one(values, labels, patients):
    names = ("x", "y", "z")
    whole = HealthSums.of(names, 3, patients, labels, values)
    assert whole.counts.sum() == pytest.approx(len(set(patients)))
    for patient in set(patients):
        kept = [i for i in range(12) if patients[i] != patient]
        less = HealthSums.of(names, 3, [patients[i] for i in kept], [labels[i] for i in kept], values[kept])
        assert np.abs(whole.counts - less.counts).sum() <= 1 + 1e-9
        assert np.abs(whole.total - less.total).sum(0).max() <= 1 + 1e-9
        assert np.abs(whole.squares - less.squares).sum(0).max() <= 1 + 1e-9


def test_the_mean_is_that_of_patients_not_of_images():
    sums = HealthSums.of(("x",), 2, ["a", "a", "a", "b"], [0, 0, 1, 1], np.array([[0.1], [0.3], [0.5], [1.0]]))
    assert sums.mean["x"] == pytest.approx((0.3 + 1.0) / 2)
    np.testing.assert_allclose(sums.counts, [2 / 3, 1 / 3 + 1])


def test_contrast_is_welchs():
    rng = np.random.default_rng(1)
    values = rng.random((40, 1))
    labels = (rng.random(40) < 0.4).astype(int)
    sums = HealthSums.of(("x",), 2, [f"p{i}" for i in range(40)], labels.tolist(), values)
    difference, error = sums.contrast(1)
    one, rest = values[labels == 1, 0], values[labels == 0, 0]
    expected = ttest_ind_from_stats(
        one.mean(), one.std(ddof=1), len(one), rest.mean(), rest.std(ddof=1), len(rest), equal_var=False
    )
    assert difference[0] / error[0] == pytest.approx(expected.statistic)


def test_a_class_of_one_patient_has_no_contrast():
    sums = HealthSums.of(("x",), 2, ["a", "b", "c"], [0, 0, 1], np.array([[0.1], [0.2], [0.9]]))
    assert np.isnan(sums.contrast(1)).all()


def test_a_class_that_nobody_has_changes_nothing_else():
    patients, labels, values = ["a", "b", "c", "d"], [0, 0, 2, 2], np.array([[0.1], [0.2], [0.9], [0.4]])
    with_empty = HealthSums.of(("x",), 3, patients, labels, values)
    without = HealthSums.of(("x",), 2, patients, [0, 0, 1, 1], values)
    assert with_empty.counts.tolist() == [2, 0, 2]
    assert with_empty.total[1].tolist() == with_empty.squares[1].tolist() == [0]
    assert with_empty.mean == without.mean
    assert np.isnan(with_empty.contrast(1)).all()
    np.testing.assert_allclose(with_empty.contrast(2), without.contrast(1))
    nobody = HealthSums.of(("x",), 3, [], [], np.zeros((0, 1)))
    assert nobody.mean == {}
    assert all(np.isnan(nobody.contrast(group)).all() for group in range(3))


@pytest.mark.parametrize(
    "change",
    [
        {"counts": np.zeros(3)},
        {"total": np.full((2, 1), np.nan)},
        {"total": np.full((2, 1), 9.0)},
        {"squares": np.full((2, 1), -1.0)},
        {"names": ("x", "y")},
    ],
    ids=["shape", "nan", "too much", "negative", "names"],
)
def test_impossible_sums_are_refused(change):
    right = {"names": ("x",), "counts": np.ones(2), "total": np.full((2, 1), 0.5), "squares": np.full((2, 1), 0.3)}
    HealthSums(**right)
    with pytest.raises(ProtocolError, match="health sums"):
        HealthSums(**right | change)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_is_watched_and_left_as_it_was(name):
    torch.manual_seed(0)
    channels, size = fed(name)
    model = MODELS.load(name)(ModelSection(name=name, width=8), channels, 2, size).eval()
    images = noisy(name, 6)
    with torch.no_grad(), HealthMeter(model, 2) as meter:
        before = model(images)
        meter.note([f"p{i}" for i in range(6)], [0, 1] * 3)
    sums = meter.finish()
    assert sums.names == health_names(model)
    assert all(0 <= value <= 1 for value in sums.mean.values())
    assert all(not layer._forward_hooks and not getattr(layer, "explicit", False) for layer in model.modules())
    with torch.no_grad():
        torch.testing.assert_close(model(images), before, atol=1e-5, rtol=1e-5)


def test_images_without_their_patients_are_refused():
    model = MODELS.load("se-convnet")(ModelSection(name="se-convnet", width=8), 1, 2, 32).eval()
    with torch.no_grad(), HealthMeter(model, 2) as meter:
        model(torch.randn(3, 1, 32, 32))
        with pytest.raises(DataError, match="3 images come with 2 patients and 3 classes"):
            meter.note(["a", "b"], [0, 1, 0])
