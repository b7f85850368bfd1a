"""Noise: each law against SciPy's, never repeated, and never from a seed of the run."""

import os
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from common.keystream import Keystream
from common.randomness import SecureRandom

KEY = bytes(range(32))
MANY = 200_000


def test_the_keystream_is_aes_in_counter_mode():
    # From block 2 on, as GCM counts (NIST SP 800-38D); plain counter mode of the same library from the same block.
    out = np.empty(100_000, np.uint8)
    Keystream(KEY).fill(out)
    plain = Cipher(algorithms.AES256(KEY), modes.CTR((2).to_bytes(16, "big"))).encryptor().update(bytes(len(out)))
    assert out.tobytes() == plain


def test_a_stream_ends_before_its_counter_comes_round():
    stream = Keystream(KEY)
    stream.left = 10
    with pytest.raises(ValueError, match="Take a new key"):
        stream.words32(3)
    random = SecureRandom()
    random.stream.left = 0
    assert len(random.normal(4)) == 4  # takes a new key by itself


def test_the_keystream_does_not_depend_on_how_it_is_read():
    whole, parts = np.empty(600_000, np.uint8), np.empty(600_000, np.uint8)
    Keystream(KEY).fill(whole)
    stream = Keystream(KEY)
    for start, stop in ((0, 7), (7, 300_001), (300_001, 600_000)):
        stream.fill(parts[start:stop])
    assert (whole == parts).all()


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="allowed are 16 and 32"):
        Keystream(b"short")


@pytest.mark.parametrize(
    ("draw", "law"),
    [
        (lambda random: random.uniform(MANY), stats.uniform()),
        (lambda random: random.normal(MANY), stats.norm()),
        (lambda random: random.laplace(MANY), stats.laplace()),
    ],
)
def test_continuous_laws_are_what_they_are_called(draw, law):
    assert stats.kstest(draw(SecureRandom(KEY)), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("mean", [0.3, 4.0, 9.9, 10.0, 60.0, 5000.0])
def test_poisson(mean):
    _fits(SecureRandom(KEY).poisson(mean, MANY), stats.poisson(mean).pmf)


@pytest.mark.parametrize("variance", [0.5, 8.0, 400.0])
def test_skellam(variance):
    _fits(SecureRandom(KEY).skellam(variance, MANY), stats.skellam(variance / 2, variance / 2).pmf)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.7, 50.0])
def test_discrete_gaussian(sigma):
    grid = np.arange(-2000, 2001)
    weight = np.exp(-(grid**2) / (2 * sigma**2))
    law = dict(zip(grid.tolist(), weight / weight.sum(), strict=True))
    _fits(SecureRandom(KEY).discrete_gaussian(sigma, MANY), lambda ks: np.array([law[int(k)] for k in ks]))


def test_large_laws_keep_mean_and_variance():
    # Variance of the sample variance of a normal-like law: 2 s⁴/n, so 5 standard errors are 5·√(2/n) of it.
    for values, mean, variance in (
        (SecureRandom(KEY).poisson(2.0**40, MANY), 2.0**40, 2.0**40),
        (SecureRandom(KEY).skellam(2.0**40, MANY), 0.0, 2.0**40),
        (SecureRandom(KEY).discrete_gaussian(2.0**20, MANY), 0.0, 2.0**40),
    ):
        assert abs(values.mean() - mean) < 5 * (variance / MANY) ** 0.5
        assert abs(values.var() / variance - 1) < 5 * (2 / MANY) ** 0.5


def test_a_mean_out_of_range_is_refused():
    with pytest.raises(ValueError, match="2\\^52"):
        SecureRandom(KEY).poisson(-1.0, 3)


def test_rounding_is_unbiased_and_next_to_the_value():
    values = np.full(MANY, -2.25)
    rounded = SecureRandom(KEY).rounded(values)
    assert set(rounded.tolist()) == {-3, -2}
    assert abs(rounded.mean() + 2.25) < 5 * (0.25 * 0.75 / MANY) ** 0.5


def test_poisson_sampling_takes_each_with_its_probability():
    taken = SecureRandom(KEY).chosen(MANY, 0.03).sum()
    assert abs(taken - 0.03 * MANY) < 5 * (0.03 * 0.97 * MANY) ** 0.5


def test_seeds_of_the_run_do_not_touch_noise():
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        drawn.append(SecureRandom().normal(8).tolist())
    assert drawn[0] != drawn[1]


def test_an_object_never_repeats_itself():
    random = SecureRandom()
    assert random.normal(8).tolist() != random.normal(8).tolist()


def test_a_forked_process_has_noise_of_its_own():
    random = SecureRandom()
    random.normal(1)
    context = get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=lambda: queue.put(random.normal(4).tolist())) for _ in range(2)]
    for child in children:
        child.start()
    drawn = [tuple(queue.get()) for _ in children] + [tuple(random.normal(4).tolist())]
    for child in children:
        child.join()
    assert len(set(drawn)) == 3
    assert os.getpid() not in [child.pid for child in children]


def _fits(values, pmf):
    """Chi-square of the counts against the law, tails merged so that every cell expects at least ten."""
    low, high = int(np.quantile(values, 0.001)), int(np.quantile(values, 0.999))
    edges = np.unique(np.linspace(low, high, 40).round().astype(int))
    grid = np.arange(low, high + 1)
    inside = pmf(grid)
    counts = np.bincount(values[(values >= low) & (values <= high)] - low, minlength=len(grid))
    cells = np.searchsorted(edges, grid, side="right")
    expected, found = (np.bincount(cells, weights=each) for each in (inside * len(values), counts))
    keep = expected >= 10
    rest = len(values) - found[keep].sum(), len(values) - expected[keep].sum()
    chi = ((found[keep] - expected[keep]) ** 2 / expected[keep]).sum() + (rest[0] - rest[1]) ** 2 / max(rest[1], 1e-9)
    assert stats.chi2(keep.sum()).sf(chi) > 1e-4


def test_the_largest_word_gives_less_than_one_and_the_smallest_more_than_zero():
    random = SecureRandom(KEY)
    for byte, bound in ((0xFF, 1 - 2**-53), (0x00, 2**-53)):

        class Constant:
            left = 2**35

            def piece(self, size, byte=byte):
                return memoryview(bytes([byte]) * size)

        random.stream  # noqa: B018 - makes the stream that is put aside
        random._stream = Constant()
        assert random.uniform(4).tolist() == [bound] * 4
        assert np.isfinite(random.normal(4)).all()


def test_seeds_come_from_the_stream_and_are_no_two_alike():
    random = SecureRandom(KEY)
    seeds = {random.seed() for _ in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert SecureRandom(KEY).seed() in seeds


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_noise_that_is_added_is_the_noise_that_is_given(kind):
    count = 40_000  # more than one piece
    values = np.linspace(-1, 1, count).astype(kind)
    expected = (values + 0.7 * SecureRandom(KEY).normal(count)).astype(kind)
    SecureRandom(KEY).add_normal(values, 0.7)
    assert (values == expected).all()
