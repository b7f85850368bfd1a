"""The exchange over a Grid whose nodes answer as told: names, codes, strangers and silence."""

import logging
from collections.abc import Callable

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.errors import AggregationError, ProtocolError
from common.messages import EvaluateReply, EvaluateRequest, Hello, HelloRequest, TrainRequest, pack, unpack
from server.exchange import Exchange

Answer = Callable[[Message], Message | None]


class Nodes:
    """Carries messages to functions."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = dict(enumerate(answers.values(), 2))
        self.seen: list[Message] = []
        self.timeouts: list[float] = []

    def get_node_ids(self):
        return list(self.answers)

    def send_and_receive(self, messages, *, timeout):
        self.timeouts.append(timeout)
        replies = []
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = str(number)
            self.seen.append(message)
            replies.append(self.answers[message.metadata.dst_node_id](message))
        return [reply for reply in replies if reply is not None]


@pytest.fixture(autouse=True)
def _be_server(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def hello(site, role="source"):
    return Hello(
        site=site, role=role, train_images=5, train_patients=2, classes=(), mask_classes=(), channels=1, image_size=8
    )


def site(name, then=None, role="source"):
    """A node that says who it is, and afterwards whatever `then` makes of a message."""

    def answer(message):
        if message.metadata.message_type == "query":
            assert unpack(message.content, HelloRequest).config_digest == "digest"
            return Message(pack(hello(name, role)), reply_to=message)
        return then(message) if then else judged(name)(message)

    return answer


def judged(name, images=3):
    return lambda message: Message(pack(EvaluateReply(site=name, images=images, loss_sum=1.0)), reply_to=message)


def failing(reason):
    return lambda message: Message(Error(code=2, reason=reason), reply_to=message)


def met(**answers) -> Exchange:
    exchange = Exchange(Nodes(**answers), timeout=60.0)
    exchange.meet("digest", len(answers))
    return exchange


def evaluate(exchange):
    return exchange.evaluate(exchange.names(), EvaluateRequest(round=1, arrays={}, split="val"))


def test_sites_are_known_by_name_and_role():
    exchange = met(a=site("b"), b=site("a", role="held-out"), c=site("c"))
    assert exchange.names() == ["a", "b", "c"]
    assert exchange.names("source") == ["b", "c"]
    assert exchange.names("held-out") == ["a"]


def test_each_site_gets_its_own_message_and_only_those_asked():
    nodes = Nodes(a=site("a"), b=site("b"), c=site("c"))
    exchange = Exchange(nodes, timeout=60.0)
    exchange.meet("digest", 3)
    nodes.seen.clear()
    replies, failures = exchange.evaluate(["c", "a"], EvaluateRequest(round=1, arrays={}, split="val"))
    assert sorted(message.metadata.dst_node_id for message in nodes.seen) == [2, 4]
    assert list(replies) == ["a", "c"]
    assert failures == {}
    assert set(nodes.timeouts) == {60.0}


def test_replies_come_in_the_order_of_names_whoever_was_faster():
    assert list(evaluate(met(x=site("c"), y=site("a"), z=site("b")))[0]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("consilium:data", "data"),
        ("consilium:unknown-name", "unknown-name"),
        ("FileNotFoundError: /data/p-007.png", "unreachable"),
        ("consilium:/data/p-007.png", "unreachable"),
        ("consilium:data patient Smith", "unreachable"),
        ("consilium:data\nSmith", "unreachable"),
        ("consilium:" + "a" * 41, "unreachable"),
        ("", "unreachable"),
    ],
)
def test_only_a_code_is_taken_from_a_failure(reason, code, caplog):
    caplog.set_level(logging.DEBUG)
    replies, failures = evaluate(met(a=site("a", failing(reason)), b=site("b")))
    assert failures == {"a": code}
    assert list(replies) == ["b"]
    assert "p-007" not in caplog.text
    assert "Smith" not in caplog.text


@pytest.mark.parametrize(
    "reply",
    [
        lambda message: Message(RecordDict(), reply_to=message),
        lambda message: Message(pack(hello("a")), reply_to=message),
        judged("b"),
        judged(""),
    ],
    ids=["empty", "other kind", "name of another", "no name"],
)
def test_a_malformed_reply_or_one_in_anothers_name_is_left_out(reply):
    replies, failures = evaluate(met(a=site("a", reply), b=site("b")))
    assert failures == {"a": "protocol"}
    assert list(replies) == ["b"]


def test_silence_is_named():
    replies, failures = evaluate(met(a=site("a", lambda message: None), b=site("b")))
    assert failures == {"a": "no-reply"}
    assert list(replies) == ["b"]


def test_the_answer_of_a_stranger_is_ignored():
    def as_stranger(message):
        reply = judged("a", images=99)(message)
        reply.metadata.__dict__["_src_node_id"] = 77
        return reply

    replies, failures = evaluate(met(a=site("a", as_stranger), b=site("b")))
    assert failures == {"a": "no-reply"}
    assert list(replies) == ["b"]


def test_two_nodes_of_one_name_are_refused():
    with pytest.raises(ProtocolError, match="two nodes call themselves 'a'"):
        met(x=site("a"), y=site("a"))


def test_a_site_that_refuses_the_hello_ends_the_run_with_its_code():
    with pytest.raises(AggregationError, match="1 of 2 sites cannot take part: config"):
        met(a=site("a"), b=failing("consilium:config"))


def test_nobody_online_is_said_after_the_wait():
    exchange = Exchange(Nodes(), timeout=0.01)
    with pytest.raises(AggregationError, match=r"came online within 0\.01 seconds"):
        exchange.meet("digest", 1)


def test_training_goes_only_where_asked():
    trained = []

    def note(message):
        trained.append(unpack(message.content, TrainRequest).round)
        return failing("consilium:data")(message)

    exchange = met(a=site("a", note), b=site("b", note))
    _, failures = exchange.train(["b"], TrainRequest(round=3, arrays={}))
    assert failures == {"b": "data"}
    assert trained == [3]
