"""The in-process engine: Flower's Grid without Flower's processes.

Both apps run unchanged and exchange real messages, serialised as on the wire; workers are forked, one per core.
Private names of flwr 1.41 used here and nowhere else: `serde` (a message as bytes), `TaskIdentity` (who this process
is), `Run`. `tests/integration/test_engine.py` names them too, so that an upgrade shows at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client.app import app as client_app
from client.site import MEMBERS, STORE
from common.config import RunConfig, Scalar
from common.device import choose_device
from server.app import coordinate
from server.checkpoint import Checkpoint
from server.rounds import Observer, StopFlag
from simulations.workers import Emit, Workers, default_workers

SERVER_NODE = 1
RUN_ID = 1
LOST = "consilium:worker-lost"


@dataclass(frozen=True, slots=True)
class Training:
    """One federated training: its settings, and the sites that take part.

    A group of several names is one virtual site that holds all their images: one group of all sites is pooled
    (centralised) training, one group of one site is local training, and FedAvg over one site is the identity.
    """

    name: str
    config: RunConfig
    groups: tuple[tuple[str, ...], ...]


def node_config(config: RunConfig, members: Sequence[str]) -> dict[str, Scalar]:
    """Give the node settings of one simulated site: whose images it holds, and where it keeps what is its own."""
    return {MEMBERS: "\n".join(members), STORE: str(Path(config.out) / "sites") if config.out else ""}


class LocalGrid(Grid):
    """Carries messages to ClientApps in worker processes, or in this one when `workers` is 0."""

    def __init__(self, config: RunConfig, groups: Sequence[Sequence[str]], workers: int) -> None:
        _be_server()
        self._contexts = {
            number + SERVER_NODE + 1: Context(
                run_id=RUN_ID,
                node_id=number + SERVER_NODE + 1,
                node_config=node_config(config, members),
                state=RecordDict(),
                run_config=dict(config.flat()),
            )
            for number, members in enumerate(groups)
        }
        self._states: dict[int, bytes] = {}
        self._workers = Workers(workers, self._answer)

    def _answer(self, request: bytes, emit: Emit) -> bytes:
        """Answer in a worker: a node's state comes with the message and goes back with the answer, as in Flower."""
        state, content = _split(request)
        message = _decode(content)
        node = message.metadata.dst_node_id
        context = self._contexts[node]
        context.state = recorddict_from_proto(ProtoRecordDict.FromString(state))
        TaskIdentity.node_id = node
        try:
            answer = _encode(client_app(message, context))
            return _join(recorddict_to_proto(context.state).SerializeToString(), answer)
        finally:
            _be_server()

    def get_node_ids(self) -> Iterable[int]:
        """Give the number of every site's node."""
        return list(self._contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Let the sites answer.

        A site whose worker dies twice gives an error; one that does not answer in time gives nothing, as over Flower's
        own Grid. Without workers nothing can interrupt a site, so there is no time limit.
        """
        sent = list(messages)
        for number, message in enumerate(sent):
            message.metadata.__dict__["_message_id"] = str(number)
        answers = self._workers.run(_Letters(sent, self._states), timeout or 3600.0)
        return [
            self._taken(message, answer) for message, answer in zip(sent, answers, strict=True) if answer is not None
        ]

    def _taken(self, message: Message, answer: bytes | Exception) -> Message:
        if not isinstance(answer, bytes):
            return Message(Error(code=2, reason=LOST), reply_to=message)
        state, content = _split(answer)
        self._states[message.metadata.dst_node_id] = state
        return _decode(content)

    def close(self) -> None:
        """End the workers."""
        self._workers.close()

    def set_run(self, run: Run) -> None:
        """Do nothing: the run is fixed."""

    @property
    def run(self) -> Run:
        """An empty record of the run."""
        return Run.create_empty(RUN_ID)

    def create_message(self, content: RecordDict, message_type: str, *rest: Any, **options: Any) -> Message:
        """Refuse: build a `Message` instead, as Flower advises."""
        raise NotImplementedError("Build flwr.app.Message directly.")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: use `send_and_receive`."""
        raise NotImplementedError("Use send_and_receive.")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse: use `send_and_receive`."""
        raise NotImplementedError("Use send_and_receive.")


class _Letters:
    """Messages as bytes, each made when it is sent: a round of many sites never holds as many copies of the arrays."""

    def __init__(self, messages: Sequence[Message], states: Mapping[int, bytes]) -> None:
        self._messages = messages
        self._states = states

    def __len__(self) -> int:
        return len(self._messages)

    def __getitem__(self, index: int) -> bytes:
        message = self._messages[index]
        return _join(self._states.get(message.metadata.dst_node_id, b""), _encode(message))


def train(
    training: Training, observe: Observer, stop: StopFlag | None = None, workers: int | None = None
) -> Checkpoint:
    """Run one training to its end, or on from its checkpoint.

    Args:
        training: What to train.
        observe: Called with each round's record.
        stop: When set, the run stops after the round it is in.
        workers: Processes; None means one per core, and none on a GPU, which the parent's process then holds.

    Raises:
        ConsiliumError: See `server.app.coordinate`.
        Stopped: After a checkpoint, because `stop` was set.
    """
    count = choose_workers(training.config, workers, len(training.groups))
    grid = LocalGrid(training.config, training.groups, count)
    try:
        return coordinate(grid, training.config, observe, stop, len(training.groups))
    finally:
        grid.close()


def choose_workers(config: RunConfig, wish: int | None, jobs: int) -> int:
    """Give the number of worker processes: no more than jobs, and none on a GPU unless wished."""
    if wish is None:
        wish = default_workers() if choose_device(config.train.device).type == "cpu" else 0
    return 0 if min(wish, jobs) < 2 else min(wish, jobs)


def _be_server() -> None:
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.node_id = SERVER_NODE
    TaskIdentity.task_id = RUN_ID


def _join(state: bytes, content: bytes) -> bytes:
    return len(state).to_bytes(8, "big") + state + content


def _split(joined: bytes) -> tuple[bytes, bytes]:
    start = 8 + int.from_bytes(joined[:8], "big")
    return joined[8:start], joined[start:]


def _encode(message: Message) -> bytes:
    return bytes(message_to_proto(message).SerializeToString())


def _decode(content: bytes) -> Message:
    return message_from_proto(ProtoMessage.FromString(content))
