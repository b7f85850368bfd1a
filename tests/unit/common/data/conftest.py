"""A small data set with every column, and settings that read it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from common.config import DataSection, load_run_config
from common.data.base import Dataset


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    def make(patients: int = 12, sites: int = 2, size: int = 8, seed: int = 0, **changes: Any) -> Dataset:
        """1 to 3 images of each patient; patient names repeat from site to site; labels 0, 1, 2."""
        rng = np.random.default_rng(seed)
        counts = rng.integers(1, 4, patients * sites)
        owner = np.repeat(np.arange(patients * sites), counts)
        rng.shuffle(owner)
        columns: dict[str, Any] = {
            "name": "tiny",
            "images": rng.integers(0, 256, (len(owner), 1, size, size), dtype=np.uint8),
            "labels": rng.integers(0, 3, len(owner)),
            "masks": rng.integers(0, 2, (len(owner), size, size), dtype=np.uint8),
            "patients": np.array([f"p{index % patients:03}" for index in owner]),
            "sites": (owner // patients).astype(np.int64),
            "site_names": tuple(f"site {chr(97 + index)}" for index in range(sites)),
            "classes": ("none", "mild", "severe"),
            "mask_classes": ("background", "lesion"),
            "licence": "CC0",
        }
        return Dataset(**(columns | changes))

    return make


@pytest.fixture
def data_settings() -> Callable[..., DataSection]:
    def settings(**changes: Any) -> DataSection:
        """Archive settings that keep the image size; `held_out="a"` sets `data.held-out`."""
        flat = {f"data.{key.replace('_', '-')}": value for key, value in changes.items()}
        return load_run_config({"data.name": "archive", "data.image-size": 0, **flat}).data

    return settings
