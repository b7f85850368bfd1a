"""The wire: whatever is packed comes back; whatever else arrives is a ProtocolError and never anything worse."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.attention.health_sums import HealthSums
from common.attention.signature import Signature
from common.errors import ProtocolError
from common.messages import (
    DTYPES,
    RAW,
    EvaluateReply,
    EvaluateRequest,
    Hello,
    HelloRequest,
    TrainReply,
    TrainRequest,
    from_wire,
    pack,
    to_wire,
    unpack,
)

text = st.text(st.characters(codec="utf-8"), max_size=10)
number = st.integers(0, 2**63 - 1)
real = st.floats()
# Every NaN of one kind: which of its many bit patterns a float carries is nobody's business, arrays keep theirs.
array = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
arrays = st.dictionaries(text, array, max_size=3)
names = st.lists(text, max_size=3).map(tuple)


@st.composite
def signatures(draw):
    size = draw(st.integers(1, 5))
    vectors = hnp.arrays(np.float64, size, elements=st.floats(-1e3, 1e3))
    return Signature(draw(text), draw(st.integers(0, 10**6)), draw(vectors), draw(vectors))


@st.composite
def health_sums(draw):
    names = tuple(draw(st.lists(text, max_size=3)))
    labels = draw(st.lists(st.integers(0, 1), min_size=1, max_size=6))
    values = draw(hnp.arrays(np.float64, (len(labels), len(names)), elements=st.floats(0, 1)))
    return HealthSums.of(names, 2, [f"p{i // 2}" for i in range(len(labels))], labels, values)


signature = st.none() | signatures()
health = st.none() | health_sums()
BODIES = {
    HelloRequest: st.builds(HelloRequest, config_digest=text),
    Hello: st.builds(
        Hello,
        site=text,
        role=text,
        train_images=number,
        train_patients=number,
        classes=names,
        mask_classes=names,
        channels=number,
        image_size=number,
    ),
    TrainRequest: st.builds(
        TrainRequest,
        round=number,
        arrays=arrays,
        mu=real,
        keep_local=names,
        manner=text,
        method=text,
        shared=arrays,
        measure=st.booleans(),
        prior=arrays,
    ),
    TrainReply: st.builds(
        TrainReply,
        site=text,
        update=arrays,
        images=number,
        loss_sum=real,
        told=arrays,
        signature=signature,
        health=health,
    ),
    EvaluateRequest: st.builds(
        EvaluateRequest, round=number, arrays=arrays, split=text, own=st.booleans(), measure=st.booleans()
    ),
    EvaluateReply: st.builds(
        EvaluateReply, site=text, images=number, loss_sum=real, sums=arrays, signature=signature, health=health
    ),
}
KINDS = sorted(BODIES, key=lambda kind: kind.__name__)


def over_the_wire(records: RecordDict) -> RecordDict:
    proto = recorddict_to_proto(records)
    return recorddict_from_proto(type(proto).FromString(proto.SerializeToString()))


def same(left, right) -> bool:
    if isinstance(left, np.ndarray):
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, Signature | HealthSums):
        return all(same(getattr(left, item.name), getattr(right, item.name)) for item in fields(left))
    return type(left) is type(right) and (left == right or left != left)  # NaN is the only value unlike itself


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(data=st.data())
def test_every_body_comes_back_from_the_wire(kind, data):
    body = data.draw(BODIES[kind])
    found = unpack(over_the_wire(pack(body)), kind)
    assert all(same(getattr(body, item.name), getattr(found, item.name)) for item in fields(body))


def test_packing_twice_gives_the_same_bytes():
    body = TrainReply(site="a", update={"w": np.arange(3.0)}, images=3, loss_sum=0.5)
    first, second = (recorddict_to_proto(pack(body)).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_arrays_travel_little_endian_without_pickle_whatever_their_memory():
    array_ = np.arange(6, dtype=">f4").reshape(2, 3).T
    wire = to_wire(array_)
    assert (wire.dtype, wire.shape, wire.stype) == ("float32", (3, 2), RAW)
    assert wire.data == np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes()
    np.testing.assert_array_equal(from_wire(wire), array_)
    assert not from_wire(wire).flags.writeable


def test_what_is_all_of_some_bytes_is_sent_without_a_copy_and_a_part_of_them_is_not():
    content = np.arange(12, dtype="<u4").tobytes()
    whole = np.frombuffer(content, "<u4")
    assert to_wire(whole).data is content
    for part in (whole[2:7], whole[::-1], whole[::2], whole.reshape(3, 4).T, np.frombuffer(content, ">u4")):
        assert to_wire(part).data == part.astype("<u4").tobytes()


@pytest.mark.parametrize("dtype", ["int8", "complex64", "U3", "O", "datetime64[s]"])
def test_what_the_other_side_would_refuse_is_not_sent(dtype):
    with pytest.raises(ProtocolError, match="cannot be sent"):
        to_wire(np.zeros(2).astype(dtype))


@pytest.mark.parametrize(
    ("dtype", "shape", "stype", "data"),
    [
        ("float32", (3,), RAW, b"\0" * 11),
        ("float32", (3,), RAW, b"\0" * 16),
        ("float32", (), RAW, b""),
        ("float32", (-1,), RAW, b""),
        ("float32", (-1, -3), RAW, b"\0" * 12),
        ("float32", (2**32, 2**32), RAW, b""),  # in 64 bits the product is zero
        ("float32", (2**62, 0), RAW, b"\0"),
        ("float32", (1,) * 65, RAW, b"\0" * 4),  # more axes than NumPy has
        ("object", (1,), RAW, b"\0" * 8),
        ("float128", (1,), RAW, b"\0" * 16),
        ("<f4", (1,), RAW, b"\0" * 4),
        ("float32", (1,), "numpy.ndarray", b"\0" * 4),
    ],
)
def test_an_array_that_lies_is_refused(dtype, shape, stype, data):
    with pytest.raises(ProtocolError):
        from_wire(Array(dtype=dtype, shape=shape, stype=stype, data=data))


def request() -> TrainRequest:
    return TrainRequest(round=1, arrays={"w": np.zeros(2, np.float32)}, keep_local=("w",))


def reply() -> TrainReply:
    return TrainReply(
        site="a",
        update={"w": np.zeros(2, np.float32)},
        images=3,
        loss_sum=1.0,
        signature=Signature("s", 2, np.zeros(3), np.zeros(3)),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_is_refused_and_named(kind):
    body = request() if kind is not TrainRequest else reply()
    with pytest.raises(ProtocolError, match=f"{kind.__name__}.*{type(body).__name__}"):
        unpack(pack(body), kind)


def broken(name, value=None):
    """A packed reply with one plain value replaced, or taken out."""
    records = pack(reply())
    plain = dict(records["body"])
    if value is None:
        del plain[name]
    else:
        plain[name] = value
    records["body"] = ConfigRecord(plain)
    return records


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4, 5, 7, "6", True, 6.5])
def test_another_version_is_refused(version):
    with pytest.raises(ProtocolError, match="version"):
        unpack(broken("version", version), TrainReply)


@pytest.mark.parametrize("name", ["site", "images", "loss_sum", "signature-schema", "signature-patients"])
def test_a_missing_field_is_refused(name):
    with pytest.raises(ProtocolError, match="malformed"):
        unpack(broken(name), TrainReply)


@pytest.mark.parametrize(
    ("name", "value"),
    [("site", 3), ("images", 3.0), ("images", True), ("images", "3"), ("loss_sum", 1), ("signature-patients", "2")],
)
def test_a_wrong_type_is_refused(name, value):
    with pytest.raises(ProtocolError, match="malformed"):
        unpack(broken(name, value), TrainReply)


@pytest.mark.parametrize("value", ["", "null", '"abc"', '{"a": 1}', "[1]", '[["a"]]', "[" * 100_000, 3])
def test_a_list_of_names_is_a_list_of_names(value):
    records = pack(request())
    records["body"] = ConfigRecord({**records["body"], "keep_local": value})
    with pytest.raises(ProtocolError, match="malformed"):
        unpack(records, TrainRequest)


def test_missing_arrays_are_refused():
    for name in ("update", "body"):
        records = pack(reply())
        del records[name]
        with pytest.raises(ProtocolError):
            unpack(records, TrainReply)


@pytest.mark.parametrize(
    "extra",
    [
        {"more": ArrayRecord({})},
        {"more": MetricRecord({"patient": 3})},
        {"more": ConfigRecord({"path": "/data/p-001.png"})},
        {"arrays": ArrayRecord({})},
    ],
)
def test_a_surplus_record_is_refused(extra):
    records = pack(reply())
    for name, record in extra.items():
        records[name] = record
    with pytest.raises(ProtocolError, match="more than its fields"):
        unpack(records, TrainReply)


def test_a_surplus_value_is_refused():
    with pytest.raises(ProtocolError, match="more than its fields"):
        unpack(broken("patient", "p-001"), TrainReply)
    unsigned = pack(replace(reply(), signature=None))
    unsigned["body"] = ConfigRecord({**unsigned["body"], "signature-schema": "p-001"})
    with pytest.raises(ProtocolError, match="more than its fields"):
        unpack(unsigned, TrainReply)


@pytest.mark.parametrize(
    "parts",
    [
        {"total": np.zeros(3)},
        {"total": np.zeros(3), "squares": np.zeros(2)},
        {"total": np.zeros(3), "squares": np.zeros(3), "images": np.zeros(3)},
        {"total": np.zeros((3, 1)), "squares": np.zeros((3, 1))},
        {"total": np.array([np.nan, 0, 0]), "squares": np.zeros(3)},
        {"total": np.zeros(3, np.int64), "squares": np.zeros(3, np.int64)},
        {"total": np.zeros(3, np.float32), "squares": np.zeros(3, np.float32)},
    ],
)
def test_a_signature_that_is_none_is_refused(parts):
    records = pack(reply())
    records["signature"] = ArrayRecord({name: to_wire(array_) for name, array_ in parts.items()})
    with pytest.raises(ProtocolError):
        unpack(records, TrainReply)


plain_value = st.integers(-(2**63), 2**63 - 1) | st.floats() | text | st.booleans() | st.lists(st.floats(), max_size=2)
junk_array = st.builds(
    Array,
    dtype=st.sampled_from([*DTYPES, "object", "", "float33"]),
    shape=st.lists(st.integers(-2, 5), max_size=3).map(tuple),
    stype=st.sampled_from([RAW, "numpy.ndarray"]),
    data=st.binary(max_size=40),
)


@settings(max_examples=150)
@given(st.data())
def test_fuzzed_messages_are_accepted_whole_or_refused(data):
    """Random changes to a good message: replaced, added, removed values and arrays."""
    kind = data.draw(st.sampled_from(KINDS))
    records = dict(pack(data.draw(BODIES[kind])))
    plain = dict(records.pop("body"))
    plain |= data.draw(st.dictionaries(st.sampled_from([*plain, "new"]), plain_value, max_size=2))
    for gone in data.draw(st.sets(st.sampled_from(sorted(plain)), max_size=1)):
        del plain[gone]
    places = st.sampled_from(["arrays", "update", "sums", "signature", "body"])
    junk = data.draw(st.dictionaries(places, st.dictionaries(text, junk_array, max_size=2), max_size=1))
    records = RecordDict(
        {**records, "body": ConfigRecord(plain), **{name: ArrayRecord(arrays_) for name, arrays_ in junk.items()}}
    )
    try:
        body = unpack(records, kind)
    except ProtocolError:
        return
    again = unpack(pack(body), kind)
    assert all(same(getattr(body, item.name), getattr(again, item.name)) for item in fields(body))


def test_every_key_on_the_wire_is_known_here():
    """The wire changes only together with WIRE_VERSION: this table is what version 6 is."""
    records = pack(reply())
    assert list(records) == ["update", "told", "signature", "body"]
    assert {key: type(value).__name__ for key, value in records["body"].items()} == {
        "kind": "str",
        "version": "int",
        "site": "str",
        "images": "int",
        "loss_sum": "float",
        "signature-schema": "str",
        "signature-patients": "int",
    }
    assert json.loads(pack(request())["body"]["keep_local"]) == ["w"]
    assert list(pack(request())) == ["arrays", "shared", "prior", "reference", "body"]
