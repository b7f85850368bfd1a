"""Reproducible randomness: a seed from a seed and a path of names. Never used for keys or privacy noise."""

import hashlib

import numpy as np
import torch


def derive(seed: int, *path: str | int) -> int:
    """Derive a seed in [0, 2⁶³) for one named purpose.

    `derive(7, "site", "a", "round", 3)` depends on every part of the path and on nothing else: `1` and `"1"` differ, a
    NumPy integer is the integer that it stands for, and a name that holds the separator is no longer path.
    """
    text = "/".join([str(int(seed)), *map(_part, path)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def _part(part: str | int) -> str:
    if isinstance(part, str):
        return "str:" + part.replace("%", "%25").replace("/", "%2F")
    return f"int:{int(part)}"


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Make a NumPy generator for one named purpose."""
    return np.random.default_rng(derive(seed, *path))


def torch_generator(seed: int, *path: str | int) -> torch.Generator:
    """Make a CPU torch generator for one named purpose."""
    return torch.Generator().manual_seed(derive(seed, *path))
