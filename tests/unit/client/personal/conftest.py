"""One local round in any manner, on the small site of `tests/unit/client/conftest.py`."""

from collections.abc import Callable
from typing import Any

import pytest

from client.extras import PLAIN, Extras
from client.personal import MANNERS
from client.personal.base import LocalRound, Outcome
from common.arrays import load_arrays, model_arrays
from common.config import load_run_config
from common.models.personal import personal_names

STRATEGY = ("pull", "mixing", "learn_mixing", "head_epochs")


@pytest.fixture
def played(make_model, make_data, task, settings) -> Callable[..., tuple[LocalRound, Outcome]]:
    """Play one round: `played("copied", personal=("head",), arrays=..., kept=..., pull=0.1, learning_rate=0.1)`."""

    def play(
        manner: str,
        personal: tuple[str, ...] = (),
        arrays: dict[str, Any] | None = None,
        kept: dict[str, Any] | None = None,
        seed: int = 5,
        extras: Extras = PLAIN,
        model: Any = None,
        **changes: Any,
    ) -> tuple[LocalRound, Outcome]:
        model = model or make_model()
        arrays = arrays or model_arrays(model)
        load_arrays(model, arrays)
        mine = {f"strategy.{key.replace('_', '-')}": changes.pop(key) for key in STRATEGY if key in changes}
        round_ = LocalRound(
            model=model,
            task=task,
            data=make_data(),
            settings=settings(**changes),
            strategy=load_run_config(mine).strategy,
            extras=extras,
            seed=seed,
            arrays=arrays,
            names=personal_names(model, personal),
            kept=kept or {},
        )
        return round_, MANNERS.load(manner)(round_)

    return play


@pytest.fixture
def local(make_model, make_data, task, settings) -> Callable[..., dict[str, Any]]:
    """Train alone for some rounds, each with its own seed, and give the arrays: what no federation had a part in."""
    from client.training import train

    def run(seeds: tuple[int, ...] = (5,), arrays: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        model = make_model()
        load_arrays(model, arrays or model_arrays(model))
        for seed in seeds:
            train(model, task, make_data(), settings(**changes), seed)
        return model_arrays(model)

    return run
