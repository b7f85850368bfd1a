"""On Ray a site drops out at every stage of a secure sum, one a round: what is opened is the sum of the others."""

import gc
import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, MessageType

from client.site import PARTITION
from common.arrays import Arrays, is_float
from common.errors import AggregationError
from server.checkpoint import load_checkpoint
from server.history import RoundRecord
from simulations import engine, ray_engine
from simulations.engine import LocalGrid, Training, train
from simulations.ray_engine import RaySite, train_on_ray
from tests.federations import small_config

pytest.importorskip("ray", reason="Ray is not installed: consilium-fl[cluster]")
# Ray forgets the processes that it started and ended, which Python reports when it forgets them too.
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FOUR = ("north", "harbour", "lakeside", "valley")
GROUPS = tuple((site,) for site in FOUR)
STAGES = {1: "advertise", 2: "share", 3: "mask", 4: "vote", 5: "unmask"}
"""By round, the stage at which a site fails: another one each time, and those lost before are back."""
LOST = {1: ("north",), 2: ("harbour",), 3: ("lakeside",), 4: ("valley",), 5: ("north",), 6: ("north", "harbour")}
SECURE = {
    "rounds": 6,
    "attention__every": 0,
    "cohort__quorum": 3,
    "train__optimizer": "sgd",
    "secure_aggregation__enabled": True,
    "secure_aggregation__consistency": "signed",
    "secure_aggregation__ring_bits": 64,
}


class Failing(RaySite):
    """Raises past our guard at the round's stage, so that Flower answers for the site; in round 6 two sites do."""

    def __call__(self, message: Message, context: Context) -> Message:
        number = round_of(message)
        if (
            stage_of(message) == STAGES.get(number, "mask")
            and FOUR[int(context.node_config[PARTITION])] in LOST[number]
        ):
            raise RuntimeError("a reason that must not leave the site")
        return super().__call__(message, context)


class Leaving(LocalGrid):
    """The clear run to compare with: the sites whose vectors did not arrive on Ray do not train."""

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        sent = list(messages)
        gone = [message for message in sent if self.leaves(message)]
        answers = list(super().send_and_receive([each for each in sent if each not in gone], timeout=timeout))
        return answers + [Message(Error(code=1, reason="lost"), reply_to=message) for message in gone]

    def leaves(self, message: Message) -> bool:
        number = round_of(message)
        early = message.metadata.message_type == MessageType.TRAIN and STAGES[number] in ("advertise", "share", "mask")
        return early and FOUR[message.metadata.dst_node_id - 2] in LOST[number]


def body_of(message: Message) -> dict[str, Any]:
    return dict(message.content.config_records["body"])


def stage_of(message: Message) -> str:
    return "mask" if message.metadata.message_type == MessageType.TRAIN else str(body_of(message).get("stage", ""))


def round_of(message: Message) -> int:
    body = body_of(message)
    found = body["round"] if "round" in body else json.loads(str(body.get("terms") or "{}")).get("round", 1)
    return int(found)


def flat(arrays: Arrays) -> np.ndarray:
    return np.concatenate([array.ravel() for _, array in sorted(arrays.items()) if is_float(array)])


def test_a_site_lost_at_each_stage_and_then_too_many(tmp_path, monkeypatch):
    config = small_config(out=str(tmp_path / "ray"), **SECURE)
    records: list[RoundRecord] = []
    monkeypatch.setattr(ray_engine, "RaySite", Failing)
    with pytest.raises(AggregationError, match="no sum of round 6 could be opened"):
        train_on_ray(Training("ray", config, GROUPS), records.append, workers=2)
    gc.collect()
    assert [record.round for record in records] == [1, 2, 3, 4, 5]
    for record in records:
        assert set(record.failures) == set(LOST[record.round])
        assert "reason" not in json.dumps(record.failures)
    kept = load_checkpoint(tmp_path / "ray", config.digest())
    assert kept is not None
    assert kept.round == 5  # the model of the last round that was summed stands

    monkeypatch.setattr(engine, "LocalGrid", lambda config, groups, workers: Leaving(config, groups, workers))
    changes = {key: value for key, value in SECURE.items() if not key.startswith("secure")}
    clear = train(Training("clear", small_config(**{**changes, "rounds": 5}), GROUPS), lambda record: None, None, 0)
    assert np.abs(flat(kept.arrays) - flat(clear.arrays)).max() < 1e-5
    start = train(Training("clear", small_config(**{**changes, "rounds": 1}), GROUPS), lambda record: None, None, 0)
    assert np.abs(flat(start.arrays) - flat(clear.arrays)).max() > 1e-3  # the rounds moved the model by far more
