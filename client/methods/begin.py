"""From a request to the method that it names, and from the method to what is told and kept."""

from client.methods import METHODS
from client.methods.base import Begun, Method
from client.site import Site
from client.store import Store
from common.arrays import Arrays
from common.attention.base import AttentionModel
from common.config import RunConfig
from common.errors import ConfigError, ProtocolError
from common.messages import TrainRequest


def begin(config: RunConfig, site: Site, model: AttentionModel, request: TrainRequest) -> Method | None:
    """Build the method that the server asks for, before the site changes anything of the model; None for none.

    Raises:
        ProtocolError: No such method.
        ConfigError: It keeps something at the site, which has no folder.
    """
    if not request.method:
        return None
    if request.method not in METHODS:
        raise ProtocolError(f"the server asks for the method {request.method!r}. Known are {', '.join(METHODS)}.")
    method: type[Method] = METHODS.load(request.method)
    kept = _store(site).load(request.round - 1) if method.keeps else {}
    return method(
        Begun(
            model=model,
            task=site.task,
            data=site.data.train,
            train=config.train,
            strategy=config.strategy,
            round=request.round,
            shared=request.shared,
            kept=kept,
        )
    )


def finish(method: Method | None, site: Site, model: AttentionModel, round_: int, steps: int) -> Arrays:
    """Keep what the method keeps and give what it tells the server."""
    if method is None:
        return {}
    told = method.told(model, steps)
    if method.keeps:
        _store(site).save(round_, method.kept())
    return told


def _store(site: Site) -> Store:
    if site.store is None:
        raise ConfigError(
            "this run's `strategy.name` keeps something at the sites between rounds and there is no folder for it. Set "
            "`out`, or the site's `state`."
        )
    return Store(site.store / "method")
