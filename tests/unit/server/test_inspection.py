"""What a reply must be before it counts."""

from dataclasses import replace

import numpy as np
import pytest

from common.attention.schema import schema_of
from common.attention.signature import Signature
from common.config import load_run_config
from common.messages import EvaluateReply, TrainReply
from common.models.build import build_model
from server.inspection import sound_judgements, sound_signatures, sound_updates
from server.strategies.fedavg import FedAvg

OLD = {"w": np.zeros(3, np.float32), "steps": np.array(4)}
FEDAVG = FedAvg(load_run_config().strategy)
MODEL = build_model(load_run_config({"model.width": 4}).model, 1, 1, 32, seed=1)
SCHEMA = schema_of(MODEL)


def trained(site="a", images=5, loss_sum=1.0, update=None, signature=None, told=None):
    update = {"w": np.ones(3, np.float32)} if update is None else update
    return TrainReply(site=site, update=update, images=images, loss_sum=loss_sum, signature=signature, told=told or {})


def judged(images=5, signature=None, **sums):
    return EvaluateReply(site="a", images=images, loss_sum=1.0, sums=sums, signature=signature)


def test_sound_updates_are_weighed_by_images_in_the_order_of_names():
    usable, codes = sound_updates({"b": trained("b", images=2), "a": trained("a", images=7)}, OLD, FEDAVG)
    assert [(item.site, item.weight) for item in usable] == [("a", 7.0), ("b", 2.0)]
    assert codes == {}


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (trained(update={"w": np.array([1, np.nan, 0], np.float32)}), "update-not-finite"),
        (trained(update={"w": np.zeros(3)}), "update-dtype"),
        (trained(update={"w": np.zeros(2, np.float32)}), "update-shape"),
        (trained(update={}), "update-shape"),
        (trained(update={"w": np.zeros(3, np.float32), "steps": np.array(1)}), "update-shape"),
        (trained(told={"loss": np.array(1.0)}), "told-numbers"),
        (trained(images=0), "no-images"),
        (trained(images=-3), "no-images"),
    ],
)
def test_an_unsound_update_is_left_out_with_a_code(reply, code):
    usable, codes = sound_updates({"a": trained("a"), "b": reply}, OLD, FEDAVG)
    assert [item.site for item in usable] == ["a"]
    assert codes == {"b": code}


def signature(patients=2, total=None, squares=None, schema=SCHEMA.id):
    length = SCHEMA.length
    one = np.full(length, 1 / length**0.5)
    return Signature(
        schema,
        patients,
        patients * one if total is None else total,
        patients * one**2 if squares is None else squares,
    )


def test_a_signature_at_the_bound_counts():
    """Each patient's vector has a norm of at most one, so totals reach `patients` and squares sum to it."""
    found, codes = sound_signatures({"a": trained(signature=signature()), "b": judged(signature=None)}, MODEL)
    assert list(found) == ["a"]
    assert codes == {}


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (signature(schema="other"), "signature-schema"),
        (signature(total=np.zeros(3), squares=np.zeros(3)), "signature-schema"),
        (signature(patients=0, total=np.zeros(SCHEMA.length), squares=np.zeros(SCHEMA.length)), "signature-norm"),
        (signature(total=np.full(SCHEMA.length, 1.0)), "signature-norm"),
        (signature(squares=np.full(SCHEMA.length, 1.0)), "signature-norm"),
        (signature(squares=np.full(SCHEMA.length, -0.01)), "signature-norm"),
    ],
)
def test_a_signature_that_no_patients_can_add_up_to_is_left_out(bad, code):
    found, codes = sound_signatures({"a": trained(signature=signature()), "b": trained(signature=bad)}, MODEL)
    assert list(found) == ["a"]
    assert codes == {"b": code}


def test_sums_count_when_they_can_be_added():
    replies = {name: judged(auroc=np.ones(4), ece=np.ones(2)) for name in ("a", "b", "c", "d")}
    replies["b"] = judged(auroc=np.ones(5), ece=np.ones(2))
    replies["c"] = judged(auroc=np.ones(4))
    replies["d"] = judged(auroc=np.ones(4), ece=np.array([1, np.inf]))
    replies["e"] = judged(images=0, auroc=np.ones(4), ece=np.ones(2))
    replies["f"] = judged(ece=np.ones(2), auroc=np.ones(4))
    replies["g"] = replace(replies["a"], loss_sum=float("nan"))
    found, codes = sound_judgements(replies)
    assert list(found) == ["a", "f"]
    assert codes == {
        "b": "sums-shape",
        "c": "sums-shape",
        "d": "sums-not-finite",
        "e": "no-images",
        "g": "loss-not-finite",
    }


def test_nothing_is_sound():
    assert sound_judgements({}) == ({}, {})
    assert sound_updates({}, OLD, FEDAVG) == ([], {})
    assert sound_signatures({}, MODEL) == ({}, {})
