"""Seeds: every part of the path counts, nothing else does."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.seeds import derive, generator, torch_generator

path = st.lists(st.text(max_size=5) | st.integers(-5, 10**6), max_size=4).map(tuple)
seeds = st.integers(0, 2**63 - 1)


@given(seeds, path)
def test_in_range_and_the_same_again(seed, parts):
    assert derive(seed, *parts) == derive(seed, *parts)
    assert 0 <= derive(seed, *parts) < 2**63


@given(st.tuples(seeds, path), st.tuples(seeds, path))
def test_different_paths_give_different_seeds(left, right):
    assert (derive(left[0], *left[1]) == derive(right[0], *right[1])) == (left == right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("a", "b"), ("a/str:b",)),
        (("a/b",), ("a", "b")),
        (("a%2Fb",), ("a/b",)),
        (("1",), (1,)),
        (("a", ""), ("a",)),
        (("site", "ab"), ("sitea", "b")),
    ],
)
def test_names_cannot_be_put_together_to_another_path(left, right):
    assert derive(7, *left) != derive(7, *right)


@given(seeds, st.integers(0, 2**31 - 1))
def test_a_numpy_integer_is_an_integer(seed, number):
    assert derive(seed, np.int64(number)) == derive(seed, number) == derive(np.int64(seed), number)


def test_the_values_are_pinned():
    """Changing them changes every result ever written: BLAKE2b, 8 bytes, little-endian, without the lowest bit."""

    def pinned(text):
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") // 2

    assert derive(7, "site", "a", "round", 3) == pinned(b"7/str:site/str:a/str:round/int:3")
    assert derive(0) == pinned(b"0")


def test_generators_repeat_and_do_not_touch_the_global_state():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    assert generator(7, "x").random() == generator(7, "x").random()
    assert generator(7, "x").random() != generator(7, "y").random()
    draws = [torch.rand(3, generator=torch_generator(7, name)) for name in ("x", "x", "y")]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
