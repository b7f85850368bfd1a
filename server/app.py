"""The ServerApp: read the settings, meet the sites, build the parts, run the rounds."""

import logging
import threading
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import RunConfig, run_config
from common.config_checks import check_items
from common.errors import ConfigError, ProtocolError
from common.logs import set_up
from common.models.build import build_model
from common.tasks.build import build_task
from common.trees import refuse_two_trees
from server.checkpoint import Checkpoint
from server.exchange import Exchange
from server.history import POOLED, RoundRecord
from server.rounds import Observer, RoundLoop, StopFlag
from server.strategies import STRATEGIES

refuse_two_trees(__file__)
log = logging.getLogger(__name__)

# A plain assignment: Flower's loader does not see an annotated one.
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one training, started by Flower: rounds go to the log, what was learnt to `out`.

    Raises:
        ConfigError: `out` is not absolute; Flower, not the user, chose the folder that this process stands in.
        ConsiliumError: See `coordinate`.
    """
    set_up()
    config = run_config(context.run_config)
    if not config.out:
        log.warning("`out` is empty: the model is gone when the run ends. Keep it with --run-config 'out=\"/folder\"'.")
    elif not Path(config.out).is_absolute():
        raise ConfigError(
            f"setting 'out' is {config.out!r}. Under `flwr run` only an absolute path is allowed; give one."
        )
    coordinate(grid, config, log_round, sites=0)


def log_round(record: RoundRecord) -> None:
    """Say in one line what a round brought."""
    pooled = ", ".join(f"{name} {value:.4g}" for name, value in record.evaluation.get(POOLED, {}).items())
    trained, failed = len(record.train_loss), len(record.failures)
    log.info("round %d: %d sites trained, %d failed; %s", record.round, trained, failed, pooled or "not judged")


def coordinate(
    grid: Grid, config: RunConfig, observe: Observer = log_round, stop: StopFlag | None = None, sites: int = 1
) -> Checkpoint:
    """Train over any Grid and give the final state.

    Args:
        grid: Carries the messages.
        config: The run's settings.
        observe: Called with each round's record.
        stop: When set, the run stops after the round it is in.
        sites: How many to wait for before the first round; 0 waits until no more come online.

    Raises:
        ConsiliumError: A setting, site, reply or folder is not what it must be.
    """
    exchange = Exchange(grid, config.cohort.timeout_seconds)
    strategy = STRATEGIES.load(config.strategy.name)(config.strategy)
    exchange.meet(config.digest(), sites)
    hello = next(iter(exchange.hellos.values()))
    for other in exchange.hellos.values():
        for field in ("classes", "mask_classes", "channels", "image_size"):
            if getattr(other, field) != getattr(hello, field):
                raise ProtocolError(
                    f"sites {hello.site!r} and {other.site!r} differ in {field}: {getattr(hello, field)!r} and "
                    f"{getattr(other, field)!r}. All sites need the same; correct the data or `data.` settings."
                )
    check_items(config, hello.image_size)
    task = build_task(config.task, hello.classes, hello.mask_classes)
    model = build_model(config.model, hello.channels, task.outputs, hello.image_size, config.seed, dense=task.dense)
    folder = Path(config.out) if config.out else None
    loop = RoundLoop(config, exchange, strategy, task, model, folder, observe, stop or threading.Event())
    return loop.run()
