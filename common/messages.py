"""The wire: typed requests and replies, and how each becomes Flower records. The only place where a key is spelt.

Arrays travel as raw little-endian buffers with dtype and shape; nothing is ever unpickled.
"""

import json
import math
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from common.arrays import Arrays
from common.attention.health_sums import HealthSums
from common.attention.signature import Signature
from common.errors import ProtocolError

WIRE_VERSION = 6
RAW = "consilium.raw.le"
MOST_AXES = 32
TOGETHER = "together"
"""The manner of training in which all arrays are trained at once, wherever they live."""
DTYPES = ("float16", "float32", "float64", "int64", "int32", "uint32", "uint64", "uint8", "bool")


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloRequest:
    """Ask a site who it is; it refuses when its run settings have another digest."""

    config_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a site says of itself before the first round; the server builds the model from what all agree on."""

    site: str
    role: str
    train_images: int
    train_patients: int
    classes: tuple[str, ...]
    mask_classes: tuple[str, ...]
    channels: int
    image_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """Train one round from `arrays`; `mu` weighs the proximal term; `keep_local` names arrays that stay the site's.

    `manner` says how the site trains what is its own (`client/personal`); the numbers that this needs are settings.
    `method` says what the strategy asks of the site beside plain training (`client/methods`), `shared` what the server
    sends for it.
    `prior` is that of the newest measurement, as `Prior.arrays` gives it; empty before the first or where none is used.
    Under privacy `noise_multiplier` is the noise that the run intends, which the site's ledger prices, and `reference`
    the public centre of signatures. Under secure aggregation `terms` are those of the sum and `sealed` holds the
    shares that other sites sent this one.
    """

    round: int
    arrays: Arrays
    mu: float = 0.0
    keep_local: tuple[str, ...] = ()
    manner: str = TOGETHER
    method: str = ""
    shared: Arrays = field(default_factory=dict)
    measure: bool = False
    prior: Arrays = field(default_factory=dict)
    noise_multiplier: float = 0.0
    reference: Arrays = field(default_factory=dict)
    terms: str = ""
    sealed: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReply:
    """Update = local arrays − global arrays; loss is a sum over `images` seen in the last local epoch.

    `told` is what the request's method tells the server.
    """

    site: str
    update: Arrays
    images: int
    loss_sum: float
    told: Arrays = field(default_factory=dict)
    signature: Signature | None = None
    health: HealthSums | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest:
    """Judge `arrays` on one split, with what the site keeps for itself if `own`; measure the signature if asked."""

    round: int
    arrays: Arrays
    split: str
    own: bool = False
    measure: bool = False
    noise_multiplier: float = 0.0
    reference: Arrays = field(default_factory=dict)
    terms: str = ""
    sealed: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateReply:
    """Per metric a vector of sums that adds across sites; loss is a sum over `images`."""

    site: str
    images: int
    loss_sum: float
    sums: Arrays = field(default_factory=dict)
    signature: Signature | None = None
    health: HealthSums | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledReply:
    """What a site adds to a sum (`common/contribution.py`): clear segments by name, or one masked vector, tagged."""

    site: str
    segments: Arrays
    proof: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SumRequest:
    """One stage of a secure sum: its terms as JSON, and what the stage sends (`common/secagg/parcels.py`)."""

    stage: str
    terms: str
    content: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SumReply:
    """What a site answers at one stage of a secure sum."""

    site: str
    content: bytes
    proof: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistanceRequest:
    """How far does the site's attention under these arrays lie from the others'? Asked once, at the end.

    `prior_noise` is the standard deviation of the noise on each entry of the prior's mean.
    """

    arrays: Arrays
    prior: Arrays
    prior_noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DistanceReply:
    """One noisy number, and the standard deviation of its noise (`common/privacy/distance_release.py`)."""

    site: str
    distance: float
    noise: float


Body = (
    HelloRequest
    | Hello
    | TrainRequest
    | TrainReply
    | EvaluateRequest
    | EvaluateReply
    | PooledReply
    | SumRequest
    | SumReply
    | DistanceRequest
    | DistanceReply
)
B = TypeVar(
    "B",
    HelloRequest,
    Hello,
    TrainRequest,
    TrainReply,
    EvaluateRequest,
    EvaluateReply,
    PooledReply,
    SumRequest,
    SumReply,
    DistanceRequest,
    DistanceReply,
)

# Which fields travel as arrays; all others are scalars or texts. `signature` and `health` are both.
ARRAY_FIELDS = {"arrays", "update", "shared", "told", "sums", "prior", "reference", "segments"}
TUPLE_FIELDS = {"classes", "mask_classes", "keep_local"}
SCHEMA, PATIENTS, HEALTH_NAMES = "signature-schema", "signature-patients", "health-names"
MIXED = {"signature": {SCHEMA, PATIENTS}, "health": {HEALTH_NAMES}}
"""Fields that may be absent, and the scalars that come with their arrays."""


def pack(body: Body) -> RecordDict:
    """Turn a request or reply into Flower records."""
    records = RecordDict()
    plain: dict[str, Any] = {"kind": type(body).__name__, "version": WIRE_VERSION}
    for name in (item.name for item in fields(body)):
        value = getattr(body, name)
        if name in ARRAY_FIELDS:
            records[name] = _to_record(value)
        elif name == "signature":
            if value is not None:
                records[name] = _to_record({"total": value.total, "squares": value.squares})
                plain.update({SCHEMA: value.schema, PATIENTS: value.patients})
        elif name == "health":
            if value is not None:
                records[name] = _to_record({"counts": value.counts, "total": value.total, "squares": value.squares})
                plain[HEALTH_NAMES] = json.dumps(value.names)
        elif name in TUPLE_FIELDS:
            plain[name] = json.dumps(value)
        else:
            plain[name] = value
    records["body"] = ConfigRecord(plain)
    return records


def unpack(records: RecordDict, kind: type[B]) -> B:
    """Turn Flower records back into a request or reply of one kind.

    Raises:
        ProtocolError: Another kind or version, a missing or surplus field, a wrong type, or a malformed array.
    """
    plain = records.config_records.get("body")
    # By repr: True equals 1, and a version is a whole number.
    if plain is None or [plain.get("kind"), repr(plain.get("version"))] != [kind.__name__, repr(WIRE_VERSION)]:
        found = "none" if plain is None else f"{plain.get('kind')!r} of version {plain.get('version')!r}"
        raise ProtocolError(
            f"a message should hold {kind.__name__!r} of version {WIRE_VERSION} and holds {found}. "
            f"Run the same version of Consilium at every site and at the server."
        )
    try:
        body = kind(**{item.name: _field(item, records, plain) for item in fields(kind)})
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"a {kind.__name__!r} message is malformed ({type(error).__name__}).") from None
    if surplus := _surplus(kind, records, plain):
        raise ProtocolError(f"a {kind.__name__!r} message holds more than its fields: {surplus} too many.")
    return body


def _surplus(kind: type[Any], records: RecordDict, plain: ConfigRecord) -> int:
    """Count what no field asked for: it could carry anything past whoever checks the fields."""
    names = {item.name for item in fields(kind)}
    arrays = names & (ARRAY_FIELDS | set(MIXED))
    scalars = {"kind", "version", *(names - arrays)}
    for name in arrays & set(MIXED) & set(records):
        scalars |= MIXED[name]
    return len(set(records) - arrays - {"body"}) + len(set(plain) - scalars)


def _field(item: Field[Any], records: RecordDict, plain: ConfigRecord) -> Any:
    name = item.name
    if name in ARRAY_FIELDS:
        return _from_record(records.array_records[name])
    if name == "signature":
        return _signature(records.array_records[name], plain) if name in records else None
    if name == "health":
        return _health(records.array_records[name], plain) if name in records else None
    if name in TUPLE_FIELDS:
        return _texts(plain[name])
    return _typed(plain[name], item.type)


def _signature(record: ArrayRecord, plain: ConfigRecord) -> Signature:
    arrays = _from_record(record)
    if set(arrays) != {"total", "squares"} or any(array.dtype != np.float64 for array in arrays.values()):
        raise ValueError("a signature is two vectors of float64")
    return Signature(schema=_typed(plain[SCHEMA], str), patients=_typed(plain[PATIENTS], int), **arrays)


def _health(record: ArrayRecord, plain: ConfigRecord) -> HealthSums:
    arrays = _from_record(record)
    if set(arrays) != {"counts", "total", "squares"} or any(array.dtype != np.float64 for array in arrays.values()):
        raise ValueError("health sums are three arrays of float64")
    return HealthSums(names=_texts(plain[HEALTH_NAMES]), **arrays)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_typed(text, str) for text in _typed(json.loads(_typed(value, str)), list))


def _typed(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _to_record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: to_wire(array) for name, array in arrays.items()})


def _from_record(record: ArrayRecord) -> Arrays:
    return {name: from_wire(array) for name, array in record.items()}


def to_wire(array: np.ndarray[Any, Any]) -> Array:
    """Give dtype, shape and the raw little-endian bytes.

    Raises:
        ProtocolError: A dtype that the other side would refuse.
    """
    if array.dtype.name not in DTYPES:
        raise ProtocolError(f"an array of {array.dtype} cannot be sent. Allowed is {', '.join(DTYPES)}; convert it.")
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    # What is a view of all of some bytes, as a vector just masked, goes as those.
    base = cast(object, little.base)
    whole = little.strides == (little.itemsize,) and isinstance(base, bytes) and len(base) == little.nbytes
    data = cast(bytes, base) if whole else little.tobytes()
    return Array(dtype=array.dtype.name, shape=tuple(array.shape), stype=RAW, data=data)


def from_wire(array: Array) -> np.ndarray[Any, Any]:
    """View the bytes as an array again, read-only and without a copy.

    Raises:
        ProtocolError: Unknown dtype or encoding, or a length that does not fit the shape.
    """
    if array.stype != RAW or array.dtype not in DTYPES or any(side < 0 for side in array.shape):
        raise ProtocolError(f"an array is {array.stype!r} of {array.dtype!r}; allowed is {RAW!r} of {DTYPES}.")
    dtype = np.dtype(array.dtype).newbyteorder("<")
    # math.prod: in 64 bits the product of two large sides may wrap round to the length.
    if len(array.data) != dtype.itemsize * math.prod(array.shape) or len(array.shape) > MOST_AXES:
        raise ProtocolError(f"an array of shape {tuple(array.shape)} and {array.dtype} has {len(array.data)} bytes.")
    return np.frombuffer(array.data, dtype=dtype).reshape(array.shape)
