"""The one workload of the engine benchmark: sites of 28-pixel images of ten classes, drawn here, learnt by SGD.

Every variant reads the same archive and the same settings, so all do the same arithmetic.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.data.archive import write_archive
from common.data.base import Dataset

CLASSES, SIDE, SEED = 10, 28, 20240


@dataclass(frozen=True, slots=True)
class Size:
    """Images per site: trained on, judged after each round, kept as test (never touched here)."""

    sites: int = 6
    train: int = 600
    val: int = 166
    test: int = 4


def write(path: Path, size: Size) -> None:
    """Write the archive: blocks of light per class under noise, every image its own patient, splits as given."""
    random = np.random.default_rng(SEED)
    blocks = np.kron(random.normal(size=(CLASSES, 7, 7)), np.ones((1, 4, 4)))
    count = size.train + size.val + size.test
    total = size.sites * count
    labels = random.integers(0, CLASSES, total)
    light = 128 + 14 * blocks[labels] + 35 * random.normal(size=(total, SIDE, SIDE))
    write_archive(
        path,
        Dataset(
            name="bench",
            images=light.clip(0, 255).astype(np.uint8)[:, None],
            labels=labels,
            patients=np.array([f"p{index}" for index in range(total)]),
            sites=np.repeat(np.arange(size.sites), count),
            site_names=tuple(f"site-{index}" for index in range(size.sites)),
            splits=np.tile(np.repeat(np.array([0, 1, 2], np.int8), [size.train, size.val, size.test]), size.sites),
            classes=tuple(f"class-{index}" for index in range(CLASSES)),
        ),
    )


def settings(path: Path, rounds: int, **changes: Any) -> dict[str, Any]:
    """Give the settings of the workload: one local epoch of plain SGD on batches of 32, nothing measured."""
    return {
        "seed": SEED,
        "rounds": rounds,
        "data.name": "archive",
        "data.path": str(path),
        "data.image-size": SIDE,
        "task.name": "multiclass",
        "model.name": "vit-tiny",
        "model.width": 16,
        "train.optimizer": "sgd",
        "train.learning-rate": 0.05,
        "train.momentum": 0.0,
        "train.weight-decay": 0.0,
        "train.batch-size": 32,
        "train.augment": False,
        "train.device": "cpu",
        "attention.every": 0,
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
