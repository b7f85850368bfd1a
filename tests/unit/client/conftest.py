"""A small site: a model with a gate and dropout, a learnable task, images that say their label."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.attention.base import AttentionModel, AttentionSite
from common.config import TaskSection, TrainSection, load_run_config
from common.data.base import Dataset
from common.tasks.base import Task
from common.tasks.build import build_task


class Tiny(AttentionModel):
    """Pooled pixels through a channel gate to one logit."""

    def __init__(self, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.inner = nn.Linear(16, 8)
            self.gate = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid())
            self.norm = nn.LayerNorm(8)
            self.drop = nn.Dropout(dropout)
            self.head = nn.Linear(8, 1)
        self.attention_sites = (AttentionSite("gate", "channel-gate", "gate"),)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.inner(nn.functional.adaptive_avg_pool2d(self.before(images), 4).flatten(1))
        return self.head(self.drop(self.norm(hidden * self.gate(hidden))))


@pytest.fixture
def make_model() -> Callable[..., Tiny]:
    return Tiny


@pytest.fixture
def make_data() -> Callable[..., Dataset]:
    def make(count: int = 40, seed: int = 0, positive: float = 0.5, floats: bool = False) -> Dataset:
        """Bright upper halves are positive; two images per patient."""
        rng = np.random.default_rng(seed)
        labels = (rng.random(count) < positive).astype(np.int64)
        images = rng.integers(0, 120, (count, 1, 16, 16)).astype(np.uint8)
        images[labels == 1, :, :8] += 100
        return Dataset(
            name="tiny",
            images=images.astype(np.float32) / 255 if floats else images,
            labels=labels,
            patients=np.array([f"p{index // 2}" for index in range(count)]),
            sites=np.zeros(count, np.int64),
            site_names=("a",),
            classes=("no", "yes"),
        ).check()

    return make


@pytest.fixture
def task() -> Task:
    return build_task(TaskSection(name="binary", positive=""), ("no", "yes"), ())


@pytest.fixture
def settings() -> Callable[..., TrainSection]:
    def make(**changes: object) -> TrainSection:
        small = {"train.batch-size": 8, "train.device": "cpu", "train.learning-rate": 0.01}
        return load_run_config({**small, **{f"train.{key.replace('_', '-')}": v for key, v in changes.items()}}).train

    return make
