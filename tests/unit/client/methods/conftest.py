"""A round that begins at the small site, and training with a method attached."""

import pytest

from client.extras import Extras
from client.methods import METHODS
from client.methods.base import Begun
from client.training import train
from common.config import load_run_config
from tests.unit.client.conftest import make_data, make_model, settings, task  # noqa: F401

SGD = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.1, "batch_size": 10}


@pytest.fixture
def begin(make_model, make_data, task, settings):  # noqa: F811
    """Give (method, model) of a round: `begin("first-loss", shared=..., kept=..., strategy={...}, batch_size=4)`."""

    def begun(name, model=None, data=None, shared=None, kept=None, strategy=None, round_=1, **changes):
        model = model or make_model()
        strategy = load_run_config({f"strategy.{key}": value for key, value in (strategy or {}).items()}).strategy
        method = METHODS.load(name)(
            Begun(
                model=model,
                task=task,
                data=data or make_data(20),
                train=settings(augment=False, **{**SGD, **changes}),
                strategy=strategy,
                round=round_,
                shared=shared or {},
                kept=kept or {},
            )
        )
        return method, model

    return begun


@pytest.fixture
def run():
    """Train for a round and give what is told."""

    def trained(method, model, seed=5, mu=0.0):
        begun = method.begun
        result = train(model, begun.task, begun.data, begun.train, seed, Extras(mu, method=method))
        return method.told(model, result.steps)

    return trained
