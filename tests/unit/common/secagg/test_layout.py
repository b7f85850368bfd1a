"""What stands where in the vector: sums come back as exactly as promised; nothing wraps around or is cut in silence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SecureAggregationError
from common.randomness import SecureRandom
from common.secagg.layout import Layout, Segment
from common.secagg.masks import Masks, add_mask

RANDOM = SecureRandom()


def layout(bits=32, sites=5, bound=1.0):
    return Layout((Segment("update", 4, bound), Segment("counts", 2, 1000.0, whole=True)), bits, sites)


def filled(value, counts=(1, 2)):
    return {"update": np.asarray(value, np.float64), "counts": np.array(counts, np.int64)}


@settings(max_examples=100, deadline=None)
@given(
    bits=st.sampled_from([32, 64]),
    sites=st.integers(3, 40),
    bound=st.floats(1e-3, 1e4),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_sum_comes_back_within_its_error(bits, sites, bound, seed):
    one, random = layout(bits, sites, bound), np.random.default_rng(seed)
    values = random.uniform(-bound, bound, (sites, 4))
    counts = random.integers(-1000, 1001, (sites, 2))
    total = sum(one.encode(filled(value, count), RANDOM) for value, count in zip(values, counts, strict=True))
    found = one.decode(total)
    scale = one.scale(one.segments[0])
    assert np.abs(found["update"] - values.sum(axis=0)).max() <= sites / scale + 1e-12 * bound * sites
    assert (found["counts"] == counts.sum(axis=0)).all()


@pytest.mark.parametrize("bits", [32, 64])
def test_the_largest_values_of_all_sites_do_not_wrap_around(bits):
    one = layout(bits, sites=7)
    for sign in (1, -1):
        total = sum(one.encode(filled([sign] * 4, (sign * 1000,) * 2), RANDOM) for _ in range(7))
        found = one.decode(total)
        np.testing.assert_allclose(found["update"], 7 * sign, rtol=1e-6)
        assert (found["counts"] == 7000 * sign).all()


def test_rounding_has_the_deviation_that_is_said():
    wide = Layout((Segment("update", 60_000, 1.0),), 32, 10)
    values = np.random.default_rng(0).uniform(-1, 1, 60_000)
    total = sum(wide.encode({"update": values}, RANDOM) for _ in range(10))
    errors = wide.decode(total)["update"] - 10 * values
    # A value's rounding has a variance of f(1 − f), 1/6 on average.
    assert errors.std() == pytest.approx((10 / 6) ** 0.5 / wide.scale(wide.segments[0]), rel=0.02)
    assert abs(errors.mean()) < 5 * errors.std() / 60_000**0.5


def test_bytes_are_those_of_float32():
    assert layout(32).encode(filled([0] * 4), RANDOM).nbytes == 4 * (4 + 2)


@pytest.mark.parametrize(
    ("arrays", "name"),
    [
        (filled([0.0] * 3), "length"),
        ({"update": np.zeros(4)}, "length"),
        ({**filled([0.0] * 4), "more": np.zeros(1)}, "length"),
        ({**filled([0.0] * 4), "counts": np.zeros(2)}, "length"),
        (filled([np.nan, 0, 0, 0]), "not-finite"),
        (filled([np.inf, 0, 0, 0]), "not-finite"),
        (filled([1.01, 0, 0, 0]), "bound"),
        (filled([0.0] * 4, (1001, 0)), "bound"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arrays, name):
    with pytest.raises(SecureAggregationError, check=lambda error: error.refusal == name):
        layout().encode(arrays, RANDOM)


@pytest.mark.parametrize("bound", [0.0, float("inf"), float("nan"), 2.0**29])
def test_whole_numbers_that_would_wrap_around_are_refused(bound):
    with pytest.raises(SecureAggregationError, check=lambda error: error.refusal == "overflow"):
        Layout((Segment("counts", 1, bound, whole=True),), 32, 5)


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(SecureAggregationError, check=lambda error: error.refusal == "length"):
        layout().decode(np.zeros(5, np.uint32))


def test_the_digest_tells_layouts_apart():
    digests = {layout(bits, sites, bound).digest for bits in (32, 64) for sites in (3, 4) for bound in (1.0, 2.0)}
    assert len(digests) == 8


def test_a_mask_comes_off_and_covers_every_byte():
    vector = np.zeros(300_001, np.uint32)
    add_mask(vector, bytes(32), 1)
    assert len(set(vector.view(np.uint8)[-1000:].tolist())) > 200
    add_mask(vector, bytes(32), -1)
    assert not vector.any()


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 90_000), min_size=1, max_size=6), ring=st.sampled_from([np.uint32, np.uint64]))
def test_masks_go_on_from_piece_to_piece(sizes, ring):
    masks = [(bytes([7] * 16), 1), (bytes([9] * 16), -1)]
    whole = np.zeros(sum(sizes), ring)
    for key, sign in masks:
        add_mask(whole, key, sign)
    running, parts = Masks(masks, ring), [np.zeros(size, ring) for size in sizes]
    for part in parts:
        running.add(part)
    assert (np.concatenate(parts) == whole).all()


def test_pieces_are_the_vector():
    one = Layout((Segment("update", 300_000, 1.0), Segment("count", 3, 10.0, whole=True)), 32, 5)
    arrays = {"update": np.linspace(-1, 1, 300_000), "count": np.array([1, -2, 3])}
    key = bytes(32)
    pieces = [piece.copy() for piece in one.pieces(arrays, SecureRandom(key))]
    assert [len(piece) for piece in pieces] == [1 << 18, 300_000 - (1 << 18), 3]
    assert (np.concatenate(pieces) == one.encode(arrays, SecureRandom(key))).all()


def test_a_grid_is_no_finer_than_noise_can_be_drawn():
    one = Layout((Segment("update", 4, 1.0, finest=1024.0),), 64, 5)
    assert one.scale(one.segments[0]) == 1024.0
    total = one.encode({"update": np.full(4, 0.5)}, RANDOM, {"update": np.array([1024, -1024, 0, 1])})
    np.testing.assert_allclose(one.decode(total)["update"], [1.5, -0.5, 0.5, 0.5 + 1 / 1024])
