"""Reproducible randomness: a seed from a seed and a path of names. Never used for keys or privacy noise."""

import hashlib

import numpy as np
import torch


def derive(seed: int, *path: str | int) -> int:
    """Derive a seed in [0, 2⁶³) for one named purpose.

    `derive(7, "site", "a", "round", 3)` depends on every part of the path and on nothing else.
    """
    text = "/".join([str(seed), *(f"{type(part).__name__}:{part}" for part in path)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Make a NumPy generator for one named purpose."""
    return np.random.default_rng(derive(seed, *path))


def torch_generator(seed: int, *path: str | int) -> torch.Generator:
    """Make a CPU torch generator for one named purpose."""
    return torch.Generator().manual_seed(derive(seed, *path))
