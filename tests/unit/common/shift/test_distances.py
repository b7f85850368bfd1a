"""Distances between sites: axioms by hypothesis, bias and sensitivity by simulation and exhaustion, hand results."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from common.attention.distance import ordered_distance
from common.attention.prior import Prior
from common.errors import DataError
from common.shift.embedding import add_m, embedding, median_distance
from common.shift.floor import floor
from common.shift.frechet import add_f, frechet
from common.shift.moments import Moments, moments, moments_of, squared_distance
from common.shift.projected import d2, whitening

SEEDS = st.integers(0, 2**32)


def three(seed: int, length: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(rng.normal(size=length), rng.uniform(0.1, 2, length), (n, length)) for n in (4, 9, 17)]


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_add_m_and_add_f_are_pseudo_metrics(seed: int) -> None:
    embed = embedding(5, 1.5, 3)
    for distance, parts in ((lambda a, b: add_m(a, b, embed), three(seed)), (add_f, [*map(moments, three(seed))])):
        a, b, c = parts
        assert distance(a, b) == pytest.approx(distance(b, a), abs=1e-12)
        assert distance(a, a) == 0
        assert distance(a, b) >= 0
        assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-9
    assert add_m(*three(seed)[:2], embed) <= 2


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_the_root_of_the_uncorrected_projected_distance_is_a_pseudo_metric(seed: int) -> None:
    a, b, c = three(seed)
    rows = np.concatenate([a, b, c])
    whiten = whitening(rows, np.arange(len(rows)) % 2)

    def distance(left: np.ndarray, right: np.ndarray) -> float:
        return float(np.linalg.norm(whiten(left.mean(0) - right.mean(0))))

    assert distance(a, b) == pytest.approx(distance(b, a), abs=1e-9)
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-9


@pytest.mark.parametrize("replaced", range(6))
def test_one_patient_moves_w1_by_one_nth_and_add_m_by_two(replaced: int) -> None:
    """Every patient replaced by every other bin: the worst case attains 1/n exactly, from the first bin to the last."""
    bins, n = 5, 6
    rng = np.random.default_rng(replaced)
    rows = np.eye(bins)[rng.integers(bins, size=n)]
    rows[replaced] = np.eye(bins)[0]
    embed = embedding(bins, 1.0, 1)
    moved = []
    for bin_ in range(bins):
        other = rows.copy()
        other[replaced] = np.eye(bins)[bin_]
        moved.append(ordered_distance(rows.mean(0), other.mean(0)))
        assert add_m(rows, other, embed) <= 2 / n + 1e-12
    assert max(moved) == pytest.approx(1 / n)


def test_the_squared_distance_is_unbiased_under_sampling_and_noise() -> None:
    rng = np.random.default_rng(5)
    d, sizes, sigmas, gap = 12, (40, 25), (0.02, 0.05), 0.1
    scales = rng.uniform(0.2, 1.0, d)
    found, raw = [], []
    for _ in range(4000):
        sides = []
        for place, (size, sigma) in enumerate(zip(sizes, sigmas, strict=True)):
            rows = rng.normal(place * gap, scales, (size, d))
            exact = moments(rows)
            sides.append(Moments(size, exact.mean + rng.normal(0, sigma, d), exact.variance, sigma**2))
        found.append(squared_distance(*sides))
        raw.append(((sides[0].mean - sides[1].mean) ** 2).sum())
    truth, error = d * gap**2, np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - truth) < 3 * error
    assert np.mean(raw) - truth > 100 * error, "without the correction the same check would not notice"
    assert min(found) < 0, "the sign is kept"


def test_the_projected_distance_is_unbiased_though_entries_are_correlated() -> None:
    rng = np.random.default_rng(6)
    mix = rng.normal(size=(8, 8))
    source = rng.normal(size=(600, 8)) @ mix
    whiten = whitening(source, np.arange(600) % 3)
    shift = rng.normal(size=8)
    found = [d2(rng.normal(size=(30, 8)) @ mix, rng.normal(size=(20, 8)) @ mix + shift, whiten) for _ in range(3000)]
    truth = float((whiten(shift) ** 2).sum()) / 6
    assert whiten.freedom == 6
    assert abs(np.mean(found) - truth) < 3 * np.std(found) / np.sqrt(len(found))


def test_a_change_of_prevalence_moves_the_marginal_twin_alone() -> None:
    """Means are π-mixtures of μ_0, μ_1 by construction, without sampling: D²⊥ is zero to rounding, its twin is not."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(2, 6))
    spread = rng.normal(size=(10, 6))
    spread -= spread.mean(0)
    rows = {label: centres[label] + spread for label in (0, 1)}

    def site(negatives: int, positives: int) -> np.ndarray:
        return np.concatenate([rows[0]] * negatives + [rows[1]] * positives)

    labels = np.repeat([0, 1], 10)
    source = np.concatenate([rows[0], rows[1]])
    gap = site(3, 1).mean(0) - site(1, 3).mean(0)
    assert np.linalg.norm(whitening(source, labels)(gap)) < 1e-9
    assert np.linalg.norm(whitening(source, labels, projected=False)(gap)) > 0.1


def test_whitening_by_hand() -> None:
    """Two entries, two classes that differ in the first alone: what is left is the second over its deviation."""
    rows = np.array([[0.0, 1.0], [0.2, 3.0], [5.0, 1.0], [5.2, 3.0]])
    whiten = whitening(rows, np.array([0, 0, 1, 1]))
    deviation = np.sqrt((4 * 1.0) / (4 - 2) + 1e-6)  # within classes: four squares of 1 over n - K
    assert whiten.freedom == 1
    assert_allclose(np.abs(whiten(np.array([7.0, 3.0]))), [0, 3 / deviation], atol=1e-9)


def test_a_class_that_nobody_has_does_not_count() -> None:
    rows = np.random.default_rng(6).random((12, 5))
    labels = np.arange(12) % 2
    with_gap, without = whitening(rows, labels * 2), whitening(rows, labels)
    assert with_gap.freedom == without.freedom == 4
    assert_allclose(with_gap(rows), without(rows))


def test_add_f_and_frechet_agree_with_the_closed_form_in_one_dimension() -> None:
    left, right = np.array([[1.0], [3.0], [8.0]]), np.array([[0.0], [4.0]])
    expected = np.hypot(left.mean() - right.mean(), left.std(ddof=1) - right.std(ddof=1))
    assert add_f(moments(left), moments(right)) == pytest.approx(expected)
    assert frechet(left, right) == pytest.approx(expected)


def test_frechet_of_commuting_covariances_is_add_f_and_ignores_a_rotation() -> None:
    rng = np.random.default_rng(8)
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    cube = np.array([[int(bit) for bit in f"{place:04b}"] for place in range(16)], float) - 0.5  # diagonal covariance
    left, right = cube * [1, 2, 3, 4] + 1, cube * [4, 1, 1, 2]
    expected = add_f(moments(left), moments(right))
    assert frechet(left, right) == pytest.approx(expected)
    assert frechet(left @ basis, right @ basis) == pytest.approx(expected)


def test_add_m_sees_a_change_of_shape_that_leaves_mean_and_variance() -> None:
    rng = np.random.default_rng(9)
    normal = rng.normal(size=(4000, 1))
    signs = rng.choice([-1.0, 1.0], size=(4000, 1))
    embed = embedding(1, median_distance(normal[:500]), 2)
    assert add_m(normal, signs, embed) > 5 * add_m(normal, rng.normal(size=(4000, 1)), embed)


def test_the_embedding_is_the_gaussian_kernel_and_has_rows_of_norm_one() -> None:
    rng = np.random.default_rng(10)
    rows = rng.normal(size=(2, 3))
    embed = embedding(3, 1.7, 4, features=40_000)
    first, second = embed(rows)
    assert_allclose(np.linalg.norm(embed(rows), axis=1), 1, atol=1e-12)
    assert first @ second == pytest.approx(np.exp(-((rows[0] - rows[1]) ** 2).sum() / (2 * 1.7**2)), abs=0.02)


def test_median_distance_is_that_of_the_pairs() -> None:
    rows = np.array([[0.0], [1.0], [5.0]])
    assert median_distance(rows) == pytest.approx(4)


def test_the_floor_is_what_two_samples_of_one_histogram_read() -> None:
    """Independent oracle: the mean distance of real multinomial samples. The floor knows released moments alone."""
    rng = np.random.default_rng(11)
    p = np.array([0.1, 0.3, 0.4, 0.15, 0.05])
    sizes = (60, 90)
    real = np.mean([ordered_distance(*(rng.multinomial(n, p) / n for n in sizes)) for _ in range(4000)])
    sides = [Moments(n, p, p * (1 - p)) for n in sizes]
    guess = floor(sides[0], *sides, lambda a, b: ordered_distance(a / a.sum(), b / b.sum()), seed=1, draws=4000)
    assert guess == pytest.approx(real, rel=0.15)


def test_a_prior_gives_unbiased_moments() -> None:
    rows = np.random.default_rng(12).normal(size=(7, 3))
    prior = Prior("id", 7, rows.mean(0), rows.var(0))
    assert_allclose(moments_of(prior).variance, moments(rows).variance)
    assert moments_of(prior, noise=0.5).bias == pytest.approx(moments(rows).bias + 1.5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: moments(np.zeros((1, 3))), "at least 2 patients"),
        (lambda: moments(np.array([[1.0], [np.nan]])), "not finite"),
        (lambda: moments_of(Prior("id", 1, np.zeros(2), np.zeros(2))), "1 patient"),
        (lambda: squared_distance(moments(np.eye(2)), moments(np.eye(3))), "2 and 3 entries"),
        (lambda: embedding(3, 0.0, 1), "bandwidth above 0"),
        (lambda: embedding(3, 1.0, 1, features=7), "even number"),
        (lambda: whitening(np.eye(3), np.array([0, 1])), "one label each"),
        (lambda: whitening(np.eye(3), np.array([0, 1, 2])), "2 patients"),
        (lambda: whitening(np.array([[0.0], [1.0], [3.0]]), np.array([0, 0, 1])), "no entry is left"),
    ],
)
def test_bad_input_says_what_is_allowed(call, says: str) -> None:
    with pytest.raises(DataError, match=says):
        call()
