"""What the Ray engine says where Ray is not installed."""

import importlib.util

import pytest

from common.config import load_run_config
from common.errors import ConfigError
from simulations.engine import Training
from simulations.ray_engine import train_on_ray


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"consilium-fl\[cluster\]"):
        train_on_ray(Training("any", load_run_config(), (("a",),)), lambda record: None)
