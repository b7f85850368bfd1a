"""Sites drop out on Ray, one at each stage of a private secure sum: released is the clear sum of those who stayed.

One run loses another site at another stage each round, so that who was lost before must be back. Its twin is the same
run in this process and in the clear, in which exactly the sites whose vectors were lost do not answer.
"""

import gc
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType

from client.site import PARTITION
from common.arrays import Arrays
from common.config import RunConfig
from common.errors import AggregationError
from common.randomness import SecureRandom
from server.checkpoint import Checkpoint, load_checkpoint
from server.history import RoundRecord
from simulations import engine, ray_engine
from simulations.engine import LocalGrid, Training, train
from simulations.ray_engine import RaySite, train_on_ray
from tests.federations import same_arrays, small_config

pytest.importorskip("ray", reason="Ray is not installed: consilium-fl[cluster]")
# Ray forgets the processes that it started and ended, which Python reports when it forgets them too.
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FOUR = ("north", "harbour", "lakeside", "valley")
GROUPS = tuple((site,) for site in FOUR)
SECURE = {
    "secure_aggregation__enabled": True,
    "secure_aggregation__consistency": "signed",
    "secure_aggregation__ring_bits": 64,
}
# Every patient in every step, and the noise of the server, which the test can take out: the sum is then the same twice.
PRIVATE = {
    "privacy__mechanism": "gaussian",
    "privacy__placement": "central",
    "privacy__fewest_patients": 1,
    "privacy__sampling_probability": 1.0,
    "privacy__epsilon": 40.0,
    "train__augment": False,
    "train__learning_rate": 0.01,
}
BEFORE_MASKED = ("advertise", "share", "mask")


class Loss(NamedTuple):
    """Which sites fail at a stage, and how: the app raises, or its process is killed at every try, or at the first."""

    stage: str
    sites: tuple[str, ...]
    how: str


# By round. Of four sites three must live, so that the last round is refused.
PLAN = {
    1: Loss("advertise", ("north",), "raises"),
    2: Loss("share", ("harbour",), "raises"),
    3: Loss("mask", ("lakeside",), "is killed"),
    4: Loss("vote", ("valley",), "raises"),
    5: Loss("unmask", ("north",), "raises"),
    6: Loss("mask", ("harbour",), "is killed once"),
    7: Loss("mask", ("lakeside", "valley"), "raises"),
}
LAST = max(PLAN)
KILLED_ONCE = "killed-once"


class Failing(RaySite):
    """A site that fails as planned."""

    def __call__(self, message: Message, context: Context) -> Message:
        loss, site = PLAN.get(_round(message)), FOUR[int(context.node_config[PARTITION])]
        if loss and loss.stage == _stage(message) and site in loss.sites:
            self._fail(loss.how)
        return super().__call__(message, context)

    def _fail(self, how: str) -> None:
        if how == "raises":
            raise RuntimeError("a reason that must not leave the site")
        killed = Path(str(self._run["out"])) / KILLED_ONCE
        if how == "is killed" or not killed.exists():
            if how == "is killed once":
                killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Losing(LocalGrid):
    """The twin's Grid: the sites whose vectors do not arrive on Ray are not asked."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        kept = [message for message in messages if FOUR[message.metadata.dst_node_id - 2] not in lost(message)]
        return super().send_and_receive(kept, timeout=timeout)


def lost(message: Message) -> tuple[str, ...]:
    """Give the sites whose part in a round's sum is lost; one that sent its vector is in the sum, whatever follows."""
    loss = PLAN.get(_round(message)) if message.metadata.message_type == MessageType.TRAIN else None
    return loss.sites if loss and loss.stage in BEFORE_MASKED and loss.how != "is killed once" else ()


def _body(message: Message) -> dict[str, Any]:
    return dict(message.content.config_records["body"])


def _stage(message: Message) -> str:
    return "mask" if message.metadata.message_type == MessageType.TRAIN else str(_body(message).get("stage"))


def _round(message: Message) -> int:
    body = _body(message)
    return int(body["round"] if "round" in body else json.loads(body.get("terms") or "{}").get("round", 0))


@pytest.fixture(autouse=True)
def forget_ray() -> Iterator[None]:
    yield
    gc.collect()


def config(out: Path, rounds: int, changes: dict[str, Any]) -> RunConfig:
    """Plain descent in small steps: others grow the last bit of a sum from round to round, past what is compared."""
    settings = {"rounds": rounds, "attention__every": 0, "cohort__quorum": 3, "train__optimizer": "sgd"}
    return small_config(out=str(out), **settings, **changes)


class Rounds:
    """What a run left: its records, and the arrays of each round."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.records: list[RoundRecord] = []
        self.arrays: list[Arrays] = []

    def observe(self, record: RoundRecord) -> None:
        self.records.append(record)
        self.arrays.append(self.kept().arrays)

    def kept(self) -> Checkpoint:
        found = load_checkpoint(Path(self.config.out), self.config.digest())
        assert found is not None
        return found

    def run(self, engine: Callable[..., Checkpoint], workers: int) -> None:
        engine(Training("dropouts", self.config, GROUPS), self.observe, workers=workers)


def test_a_site_lost_at_each_stage_on_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In this process alone: the server's noise. A site draws none where the server does.
    monkeypatch.setattr(SecureRandom, "normal", lambda self, count: np.zeros(count))
    monkeypatch.setattr(ray_engine, "RaySite", Failing)
    ray = Rounds(config(tmp_path / "ray", LAST, {**PRIVATE, **SECURE}))
    with pytest.raises(AggregationError, match=f"no sum of round {LAST} could be opened") as refused:
        ray.run(train_on_ray, 2)
    assert "lakeside: unreachable, valley: unreachable" in str(refused.value)
    for number, record in enumerate(ray.records, 1):
        failed = () if PLAN[number].how == "is killed once" else PLAN[number].sites
        assert record.failures == dict.fromkeys(failed, "unreachable")

    monkeypatch.setattr(engine, "LocalGrid", Losing)
    twin = Rounds(config(tmp_path / "twin", LAST - 1, PRIVATE))
    twin.run(train, 0)
    assert len(ray.arrays) == len(twin.arrays) == LAST - 1
    for number, (found, expected) in enumerate(zip(ray.arrays, twin.arrays, strict=True), 1):
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6, err_msg=f"round {number}: {name}")

    for before, after in pairwise(twin.arrays):  # what is compared moves by far more than it may differ
        assert max(np.abs(after[name] - before[name]).max() for name in after) > 1e-3

    assert (tmp_path / "ray" / KILLED_ONCE).exists()
    kept = ray.kept()
    assert kept.round == LAST - 1
    assert same_arrays(kept.arrays, ray.arrays[-1])
