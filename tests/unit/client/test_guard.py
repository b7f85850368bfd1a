"""The last wall: whatever a handler raises, only a code leaves, and nothing at INFO."""

import logging

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

import common.errors
from client.guard import RAISED, guarded
from common.errors import ConsiliumError, DataError, SecureAggregationError, UnknownNameError

MARKER = "p-0815-Smith"


def all_errors(kind=ConsiliumError):
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == common.errors.__name__:
            yield from all_errors(child)


@pytest.fixture
def message(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    sent = Message(RecordDict(), dst_node_id=7, message_type="train")
    sent.metadata.__dict__["_message_id"] = "1"
    return sent


@pytest.fixture
def context():
    return Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})


def raising(error):
    def handler(message, context):
        try:
            raise OSError(f"/data/{MARKER}.png")
        except OSError as cause:
            raise error from cause

    return guarded(handler)


class Foreign(Exception):
    def __str__(self):
        raise RuntimeError("not even its text can be had")


OURS = [kind for kind in all_errors() if kind not in (UnknownNameError, SecureAggregationError)]


@pytest.mark.parametrize(
    ("error", "code"),
    [(kind(f"image of {MARKER} is broken"), kind.code) for kind in OURS]
    + [(UnknownNameError("site", MARKER, ["a"]), "unknown-name")]
    + [(SecureAggregationError("wrong-signature", MARKER), "wrong-signature")]
    + [
        (kind(f"{MARKER} failed"), "internal")
        for kind in (ValueError, KeyError, OSError, RuntimeError, MemoryError, AssertionError, StopIteration)
    ]
    + [(Foreign(), "internal"), (UnicodeDecodeError("utf-8", MARKER.encode(), 0, 1, MARKER), "internal")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_only_the_code_leaves_and_nothing_is_logged_at_info(error, code, message, context, caplog):
    caplog.set_level(logging.INFO)
    reply = raising(error)(message, context)
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (RAISED, f"consilium:{code}")
    assert reply.metadata.dst_node_id == message.metadata.src_node_id
    assert MARKER not in repr(reply)
    assert MARKER not in str(reply.error)
    assert MARKER not in caplog.text
    assert caplog.records  # that something went wrong is said
    assert all(record.exc_info is None for record in caplog.records)


def test_the_site_itself_can_ask_for_the_details(message, context, caplog):
    caplog.set_level(logging.DEBUG)
    raising(DataError(f"image of {MARKER} is broken"))(message, context)
    assert f"image of {MARKER} is broken" in caplog.text


def test_what_works_passes_untouched(message, context):
    answer = Message(RecordDict(), reply_to=message)
    assert guarded(lambda message, context: answer)(message, context) is answer


def test_every_code_is_one_the_server_takes():
    import re

    assert all(re.fullmatch(r"[a-z-]{1,40}", kind.code) for kind in all_errors())
    assert len({kind.code for kind in all_errors()}) == len(list(all_errors()))


def test_every_handler_of_the_app_is_guarded(message, context, caplog):
    """Contexts without settings, bodies without fields: all three answer with a code."""
    from client.app import app

    caplog.set_level(logging.INFO)
    for kind in ("query", "train", "evaluate"):
        message.metadata.__dict__["_message_type"] = kind
        reply = app(message, context)
        assert reply.error.reason == "consilium:config"


def test_interrupts_pass(message, context):
    """Ctrl-C is no error of the site's: the process ends."""

    def interrupted(message, context):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded(interrupted)(message, context)
