"""How the server waits for sites: for all that are announced, else until no more come, and never without end."""

from collections.abc import Iterable

import pytest
from flwr.app import Message
from flwr.serverapp import Grid

from common.errors import AggregationError
from server import exchange
from server.exchange import Exchange


class SlowGrid(Grid):
    """Nodes come online one per look, up to `most`; each answers nothing."""

    def __init__(self, most: int, pause: int = 0) -> None:
        self.looks = -pause
        self.most = most
        self.asked = 0

    def get_node_ids(self) -> Iterable[int]:
        self.looks += 1
        return range(max(0, min(self.looks, self.most)))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        self.asked = len(list(messages))
        return []

    set_run = run = create_message = push_messages = pull_messages = None  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    monkeypatch.setattr(exchange, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(exchange, "SETTLE_SECONDS", 0.1)


@pytest.mark.parametrize(("sites", "asked"), [(1, 1), (3, 3), (5, 5), (0, 5)])
def test_waits_for_as_many_as_are_announced_or_for_all(sites: int, asked: int) -> None:
    grid = SlowGrid(most=5, pause=3)
    with pytest.raises(AggregationError, match="cannot take part"):  # it asked, and nobody answers here
        Exchange(grid, timeout=30).meet("digest", sites)
    assert grid.asked == asked


@pytest.mark.parametrize(("sites", "said"), [(3, "2 of 3 sites"), (0, "0 of the sites")])
def test_the_wait_ends(sites: int, said: str) -> None:
    with pytest.raises(AggregationError, match=f"{said} came online within 0.05 seconds"):
        Exchange(SlowGrid(most=2 if sites else 0), timeout=0.05).meet("digest", sites)
