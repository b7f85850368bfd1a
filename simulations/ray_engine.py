"""The second engine: Flower's own simulation runtime on Ray, on this machine or on a Ray cluster.

The same server road, the same ClientApp and the same node settings as in the in-process engine; only the Grid differs.
docs/decisions/0020-flower-on-ray.md says why Flower is entered by `run_simulation`.
"""

import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import telemetry

from client.app import app as client_app
from client.site import PARTITION
from common.config import Scalar
from common.device import choose_device
from common.errors import ConfigError
from server.app import coordinate
from server.checkpoint import Checkpoint
from server.rounds import Observer, StopFlag
from simulations.engine import Training, node_config
from simulations.workers import TRIES, default_workers

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_worker_niceness": "0",  # Ray's own 15 starves its workers on a shared machine
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's next default; keeps it from warning
    "RAY_USAGE_STATS_ENABLED": "0",
    # Where it may try again, Ray prints each failure on stdout, the ordinary end of its own actors among them.
    "RAY_enable_output_error_log_if_still_retry": "0",
    "FLWR_TELEMETRY_ENABLED": "0",
}
# Flower gives a dead actor to the next site, and the next: without this, one killed process loses them all.
# As in-process: a killed worker is replaced, and its request tried once more.
REVIVED = {"max_restarts": -1, "max_task_retries": TRIES - 1}


class RaySite:
    """Our ClientApp with a run's settings: Flower gives a simulated node nothing but its number."""

    def __init__(self, run: Mapping[str, Scalar], nodes: Sequence[Mapping[str, Scalar]]) -> None:
        self._run = run
        self._nodes = nodes

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the site that the node stands for."""
        torch.set_num_threads(1)
        node = dict(self._nodes[int(context.node_config[PARTITION])])
        return client_app(message, Context(context.run_id, context.node_id, node, context.state, dict(self._run)))


def train_on_ray(
    training: Training, observe: Observer, stop: StopFlag | None = None, workers: int | None = None
) -> Checkpoint:
    """Run one training on Ray to its end, or on from its checkpoint.

    With `RAY_ADDRESS` set, that cluster is used with as many actors as it has cores, and the code and the data must lie
    at the same paths on all its machines. Without, Ray is started here and ended after.

    Args:
        training: What to train.
        observe: Called with each round's record.
        stop: When set, the run stops after the round it is in.
        workers: Cores, and so actors, of the Ray started here; None takes all.

    Raises:
        ConfigError: Ray is not installed.
        ConsiliumError: See `server.app.coordinate`.
        Stopped: After a checkpoint, because `stop` was set.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("engine 'ray' needs Ray. Install `consilium-fl[cluster]`, or take engine 'in-process'.")
    result: list[Checkpoint | Exception] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            result.append(coordinate(grid, training.config, observe, stop, len(training.groups)))
        except Exception as error:  # raised again below: Flower would wait, and log what is no fault of its own
            result.append(error)

    site = RaySite(training.config.flat(), [node_config(training.config, group) for group in training.groups])
    with _surroundings():
        from flwr.simulation import run_simulation

        run_simulation(
            server,
            cast(ClientApp, site),
            num_supernodes=len(training.groups),
            backend_config=_backend(training, workers),
        )
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


def _backend(training: Training, workers: int | None) -> dict[str, Any]:
    """One core for each actor, and one GPU where the run computes on GPUs; what Flower passes on to Ray as it is."""
    on_gpu = choose_device(training.config.train.device).type == "cuda"
    start: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    if not os.environ.get("RAY_ADDRESS"):
        start["num_cpus"] = max(1, min(default_workers() if workers is None else workers, len(training.groups)))
    return {"init_args": start, "client_resources": {"num_cpus": 1, "num_gpus": float(on_gpu), **REVIVED}}


@contextmanager
def _surroundings() -> Iterator[None]:
    """Set what Ray and Flower read from their surroundings; afterwards all is as before."""
    environment = dict(os.environ)
    flower = logging.getLogger("flwr")
    level, sends = flower.level, telemetry.FLWR_TELEMETRY_ENABLED
    os.environ.update(ENVIRONMENT)
    flower.setLevel(logging.ERROR)  # it announces each time that `run_simulation` will go
    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # it read its variable when flwr was imported
    try:
        yield
    finally:
        telemetry.FLWR_TELEMETRY_ENABLED = sends
        flower.setLevel(level)
        os.environ.clear()
        os.environ.update(environment)
