"""What holds for every test: one torch thread, no network, no settings from outside; and a small site to work on."""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch, flwr or a BLAS is imported; processes that tests start inherit it.
os.environ.update(
    OMP_NUM_THREADS="1",
    FLWR_TELEMETRY_ENABLED="0",
    FLWR_DISABLE_UPDATE_CHECK="1",
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1",
    RAY_USAGE_STATS_ENABLED="0",
)

import torch

torch.set_num_threads(1)

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError("a test reached for the network")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Flower's and everybody's files out of the real home."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path_factory.getbasetemp() / "flwr"))


@pytest.fixture(autouse=True)
def _logging_untouched() -> None:
    """Undo what an entry point set up, in this test or in a fixture that several tests share."""
    loggers = [logging.getLogger(name) for name in ("server", "client", "common", "simulations")]
    for logger in loggers:
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)  # also forgets which levels were found enabled


@pytest.fixture
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[1]
