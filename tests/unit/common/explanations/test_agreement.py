"""Agreement with masks: by hand, by scikit-learn, by slow twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from common.errors import AttentionError, DataError
from common.explanations.agreement import MEASURES, agreement, baseline_maps, size_tertiles
from common.explanations.patients import over_patients, patient_means

SIDE = 16  # the tolerance is 15 / 224 · 16 = 1.07 pixels


def mask_of(rows, columns):
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[0, rows, columns] = True
    return mask


def peak(row, column):
    maps = np.full((1, SIDE, SIDE), 0.1)
    maps[0, row, column] = 1.0
    return maps / maps.sum()


def one(maps, mask):
    return {name: float(value[0]) for name, value in agreement(maps, mask).items()}


def test_a_map_that_is_the_mask_is_perfect():
    mask = mask_of(slice(2, 6), slice(3, 9))
    found = one(mask / mask.sum(), mask)
    assert found == pytest.approx({"pointing": 1, "energy": 1, "lift": 256 / 24, "iou": 1, "auprc": 1})


def test_an_even_map_is_chance():
    """Lift 1 and average precision = the mask's share; of the tied pixels a share k / N of the mask is drawn."""
    mask = mask_of(slice(0, 4), slice(0, 4))
    found = one(np.full((1, SIDE, SIDE), 1 / SIDE**2), mask)
    inside = 16 * 16 / 256
    assert found["energy"] == pytest.approx(16 / 256)
    assert found["lift"] == pytest.approx(1)
    assert found["auprc"] == pytest.approx(16 / 256)
    assert found["iou"] == pytest.approx(inside / (32 - inside))


@pytest.mark.parametrize(("column", "hit"), [(5, 1), (6, 1), (7, 0), (4, 1), (3, 1), (2, 0)])
def test_the_pointing_game_forgives_a_pixel_at_this_size(column, hit):
    assert one(peak(8, column), mask_of(slice(7, 10), slice(4, 6)))["pointing"] == hit


def test_brightest_pixels_that_tie_share_the_hit():
    maps = np.zeros((1, SIDE, SIDE))
    maps[0, 0, 0] = maps[0, 8, 8] = 0.5
    assert one(maps, mask_of(slice(7, 10), slice(7, 10)))["pointing"] == 0.5


def test_iou_of_half_the_mask():
    """Of as many pixels as the mask has, half lie inside: 2 of 4, union 6."""
    mask = mask_of(slice(0, 1), slice(0, 4))
    maps = np.zeros((1, SIDE, SIDE))
    maps[0, 0, 2:6] = 0.25
    assert one(maps, mask)["iou"] == pytest.approx(2 / 6)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.booleans())
def test_properties(seed, coarse):
    """In their ranges, blind to scale and to a flip of both; average precision is scikit-learn's; iou as counted."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 5, (2, SIDE, SIDE)).astype(float) + 1e-3 if coarse else rng.random((2, SIDE, SIDE))
    maps /= maps.sum((1, 2), keepdims=True)
    masks = rng.random((2, SIDE, SIDE)) < rng.uniform(0.05, 0.6)
    found = agreement(maps, masks)
    for name in ("pointing", "energy", "iou", "auprc"):
        assert ((found[name] >= 0) & (found[name] <= 1 + 1e-12)).all()
    flipped = agreement(7 * maps[:, :, ::-1], masks[:, :, ::-1])
    for name in MEASURES:
        np.testing.assert_allclose(found[name], flipped[name], atol=1e-12)
    for place in range(2):
        wanted = average_precision_score(masks[place].ravel(), maps[place].ravel())
        assert found["auprc"][place] == pytest.approx(wanted)
        if not coarse:
            top = maps[place] >= np.sort(maps[place].ravel())[-masks[place].sum()]
            assert found["iou"][place] == pytest.approx((top & masks[place]).sum() / (top | masks[place]).sum())


def test_average_precision_with_ties_by_hand():
    """Two thresholds: at .4 two pixels, one inside (P 1/2, R 1/2); at 0 the rest (P 2/256, R 1)."""
    maps = np.zeros((1, SIDE, SIDE))
    maps[0, 0, :2] = 0.5
    mask = mask_of(0, 0) | mask_of(9, 9)
    assert one(maps, mask)["auprc"] == pytest.approx(0.5 * 0.5 + 0.5 * 2 / 256)


@pytest.mark.parametrize("fill", [False, True])
def test_a_mask_that_is_empty_or_everything_tells_nothing(fill):
    found = agreement(peak(1, 1), np.full((1, SIDE, SIDE), fill))
    assert all(np.isnan(value[0]) for value in found.values())


def test_bad_maps_and_masks_are_refused():
    with pytest.raises(DataError, match=r"masks have shape \(1, 8, 8\) and maps \(1, 16, 16\)"):
        agreement(peak(1, 1), np.ones((1, 8, 8), bool))
    for bad in (np.full((1, 4, 4), np.nan), np.full((1, 4, 4), -1.0), np.ones((4, 4))):
        with pytest.raises(AttentionError, match=r"llowed is \[N, H, W\]"):
            agreement(bad, np.ones(bad.shape, bool))


def test_baselines_know_no_image():
    maps = np.concatenate([peak(1, 1), peak(9, 9)])
    found = baseline_maps(maps)
    assert set(found) == {"uniform", "centre", "mean-map"}
    for each in found.values():
        np.testing.assert_allclose(each.sum((1, 2)), 1)
        np.testing.assert_array_equal(each[0], each[1])
    np.testing.assert_allclose(found["mean-map"][0], maps.mean(0))
    centre = found["centre"][0]
    np.testing.assert_allclose(centre, centre[::-1, ::-1])
    # a deviation of a quarter of the side: 4 pixels from the middle e^(−1/2) of it
    assert centre[8 + 3, 7] / centre[7, 7] == pytest.approx(np.exp(-0.5 * ((3.5 / 4) ** 2 - (0.5 / 4) ** 2)))


def test_tertiles_of_size():
    masks = np.zeros((7, SIDE, SIDE), bool)
    for place, size in enumerate((1, 2, 3, 4, 5, 6)):
        masks[place, 0, :size] = True
    assert size_tertiles(masks).tolist() == [0, 0, 1, 1, 2, 2, -1]
    assert size_tertiles(masks[-1:]).tolist() == [-1]


def test_an_image_counts_as_its_patient_does():
    values = np.array([1.0, 0.0, 0.5, np.nan, np.nan])
    patients = np.array(["a", "a", "b", "b", "c"])
    per, names = patient_means(values, patients)
    assert names.tolist() == ["a", "b"]
    assert per.tolist() == [0.5, 0.5]
    assert over_patients(values, patients, 0) == (0.5, 0.5, 0.5, 2)
    assert np.isnan(over_patients(np.array([np.nan]), np.array(["a"]), 0)[0])


def test_the_interval_covers_the_mean_of_many_patients():
    rng = np.random.default_rng(0)
    values, patients = rng.normal(size=400), np.repeat(np.arange(100), 4).astype(str)
    mean, low, high, count = over_patients(values, patients, 1)
    spread = values.reshape(100, 4).mean(1).std(ddof=1) / 10
    assert count == 100
    assert (high - low) == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert low < mean < high
