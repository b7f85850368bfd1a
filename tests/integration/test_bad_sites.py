"""One site that sends nonsense is left out by name; the others train on, and nothing it sent reaches the model."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from common.attention.signature import Signature
from common.errors import AggregationError
from common.messages import EvaluateReply, TrainReply, pack, unpack
from server.app import coordinate
from server.history import POOLED
from simulations.engine import LocalGrid
from tests.federations import SITES, reference, same_arrays, small_config

BAD = "harbour"


class Tampered(LocalGrid):
    """Changes what one site answers."""

    def __init__(self, config, change):
        super().__init__(config, [(site,) for site in SITES], 0)
        self._change = change
        self._bad = SITES.index(BAD) + 2

    def send_and_receive(self, messages, *, timeout=None):
        sent = {message.metadata.dst_node_id: message for message in messages}
        return [
            self._tamper(sent[self._bad], reply) if reply.metadata.src_node_id == self._bad else reply
            for reply in super().send_and_receive(sent.values(), timeout=timeout)
        ]

    def _tamper(self, message, reply):
        kind = {"train": TrainReply, "evaluate": EvaluateReply}.get(message.metadata.message_type)
        if kind is None:
            return reply
        changed = self._change(unpack(reply.content, kind))
        return Message(changed if isinstance(changed, RecordDict) else pack(changed), reply_to=message)


def run(change, **settings):
    records = []
    end = coordinate(Tampered(small_config(**settings), change), small_config(**settings), records.append)
    return end, records


def in_training(**changes):
    return lambda reply: replace(reply, **changes) if isinstance(reply, TrainReply) else reply


def in_judging(**changes):
    return lambda reply: replace(reply, **changes) if isinstance(reply, EvaluateReply) else reply


def every_array(value):
    def change(reply):
        if not isinstance(reply, TrainReply):
            return reply
        return replace(reply, update={name: np.full_like(array, value) for name, array in reply.update.items()})

    return change


def surplus(reply):
    records = pack(reply)
    records["more"] = ConfigRecord({"x": 1})
    return records


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (every_array(np.nan), "update-not-finite"),
        (every_array(-np.inf), "update-not-finite"),
        (in_training(update={}), "update-shape"),
        (in_training(images=0), "no-images"),
        (in_training(images=-5), "no-images"),
        (in_training(site="lakeside"), "protocol"),
        (lambda reply: RecordDict(), "protocol"),
        (surplus, "protocol"),
    ],
    ids=["nan", "infinite", "empty", "no images", "negative images", "other name", "no body", "surplus"],
)
def test_a_site_whose_training_is_nonsense_is_left_out(change, code, tmp_path):
    """The model is that of the two others alone: not one bit of the third's."""
    end, records = run(change, attention__every=0, out=str(tmp_path))
    alone, _ = reference(small_config(attention__every=0), tuple(site for site in SITES if site != BAD))
    assert same_arrays(end.arrays, alone.arrays)
    assert [record.failures for record in records] == [{BAD: code}] * 2
    assert all(set(record.train_loss) == {"lakeside", "north"} for record in records)


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_training_loss_that_is_no_number_is_left_out_of_the_history(loss, tmp_path):
    """The update is sound and counts; the history is JSON, which has no NaN."""
    end, records = run(in_training(loss_sum=float(loss)), out=str(tmp_path))
    whole, unchanged = reference(small_config())
    assert same_arrays(end.arrays, whole.arrays)
    assert set(records[0].train_loss) == {"lakeside", "north"}
    assert [record.evaluation for record in records] == [record.evaluation for record in unchanged]


def test_a_judged_loss_that_is_no_number_does_not_spoil_the_pool():
    _, records = run(in_judging(loss_sum=float("nan")))
    assert records[0].failures == {BAD: "loss-not-finite"}
    assert set(records[0].evaluation) == {"lakeside", "north", POOLED}
    assert 0 < records[0].evaluation[POOLED]["loss"] < 10


@pytest.mark.parametrize(
    ("sums", "code"),
    [({"auroc": np.ones(3)}, "sums-shape"), ({}, "sums-shape"), (None, "sums-not-finite")],
    ids=["short", "none", "nan"],
)
def test_sums_that_cannot_be_added_are_left_out_of_the_pool(sums, code):
    def change(reply):
        if not isinstance(reply, EvaluateReply):
            return reply
        return replace(reply, sums=sums if sums is not None else {k: v * np.nan for k, v in reply.sums.items()})

    end, records = run(change)
    whole, _ = reference(small_config())
    assert same_arrays(end.arrays, whole.arrays)
    for record in records:
        assert record.failures == {BAD: code}
        assert set(record.evaluation) == {"lakeside", "north", POOLED}


def spoilt(signature, **changes):
    values = {name: getattr(signature, name) for name in ("schema", "patients", "total", "squares")}
    return Signature(**values | changes)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (lambda found: {"schema": "another"}, "signature-schema"),
        (lambda found: {"total": found.total[:-1], "squares": found.squares[:-1]}, "signature-schema"),
        (lambda found: {"total": found.total * 1e6}, "signature-norm"),
        (lambda found: {"squares": -found.squares}, "signature-norm"),
        (lambda found: {"patients": 0}, "signature-norm"),
    ],
)
def test_a_signature_that_cannot_be_stays_out_of_the_prior(changes, code):
    def change(reply):
        if reply.signature is None:
            return reply
        return replace(reply, signature=spoilt(reply.signature, **changes(reply.signature)))

    end, records = run(change)
    whole, _ = reference(small_config())
    assert same_arrays(end.arrays, whole.arrays)
    assert set(end.signatures) == {"lakeside", "north"}
    assert end.prior.patients == whole.prior.patients - whole.signatures[BAD].patients
    assert [record.failures for record in records] == [{}, {BAD: code}]


def test_nonsense_counts_against_the_quorum():
    with pytest.raises(AggregationError, match=r"2 usable updates.*harbour: update-not-finite"):
        run(every_array(np.nan), cohort__quorum=3)


def test_a_huge_update_ends_the_run_and_says_why():
    """It is finite, so no rule of this strategy refuses it; what it makes of the model is refused."""
    with pytest.raises(AggregationError, match="overflow"):
        run(every_array(3.4e38), strategy__name="fedadam")
