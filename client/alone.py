"""What a site sends where the server may see each site by itself: its update, its signature, its metric sums."""

from client.charge import charged
from client.evaluation import LossSum, metric_sums, predict
from client.extras import Extras
from client.guidance.prepare import prepare, remember
from client.signature import measure
from client.site import Site
from client.store import Store
from client.training import train as train_locally
from common.arrays import Arrays, load_arrays, model_arrays, update_between
from common.attention.base import AttentionModel
from common.config import RunConfig
from common.data.base import Dataset
from common.errors import ConfigError, ProtocolError
from common.messages import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest
from common.privacy.plan import Plan
from common.seeds import derive


def train_alone(config: RunConfig, site: Site, model: AttentionModel, request: TrainRequest) -> TrainReply:
    """Train one round; a site with a budget of its own refuses, for nothing here has noise.

    Args:
        config: The run's settings.
        site: The site.
        model: Holds the request's arrays.
        request: The server's.
    """
    with charged(config, site, Plan(config, site.cohort).of_training(request.round), []) as charge:
        guidance = prepare(config, site, model, request)
        signature = health = None
        if request.measure:
            signature, health = measure(
                model, site.data.train, config.attention, derive(config.seed, "signature", site.name)
            )
            if signature and config.guidance.alignment:
                remember(config, site, model, signature, request.round)
        _personalise(model, site, request.arrays, request.keep_local, up_to=request.round - 1)
        seed = derive(config.seed, "site", site.name, "round", request.round)
        extras = Extras(request.mu, guidance)
        trained = train_locally(model, site.task, site.data.train, config.train, seed, extras)
        arrays = model_arrays(model)
        if request.keep_local:
            _store(site).save(request.round, {name: arrays[name] for name in request.keep_local})
        update = update_between(arrays, request.arrays)
        charge.leave(update)
    return TrainReply(
        site=site.name,
        update=update,
        images=trained.images,
        loss_sum=trained.loss_sum,
        signature=signature,
        health=health,
    )


def judge_alone(config: RunConfig, site: Site, model: AttentionModel, request: EvaluateRequest) -> EvaluateReply:
    """Judge the global arrays on one split."""
    data: Dataset = getattr(site.data, request.split)
    with charged(config, site, Plan(config, site.cohort).of_judging(request.round), []) as charge:
        signature = health = None
        if request.measure:
            signature, health = measure(
                model, site.data.train, config.attention, derive(config.seed, "signature", site.name)
            )
        _personalise(model, site, request.arrays, request.keep_local, up_to=request.round)
        loss = LossSum()
        sums = metric_sums(site.task, predict([model], site.task, data, loss))
        charge.leave(sums)
    return EvaluateReply(
        site=site.name, images=len(data), loss_sum=loss.value, sums=sums, signature=signature, health=health
    )


def _personalise(model: AttentionModel, site: Site, arrays: Arrays, keep_local: tuple[str, ...], up_to: int) -> None:
    """Put the site's own arrays over the global ones; an update is measured from the global ones all the same."""
    if unknown := sorted(set(keep_local) - set(arrays)):
        raise ProtocolError(f"the server names {len(unknown)} arrays to keep that the model does not have.")
    if keep_local and site.data.role == "source":
        load_arrays(model, {**arrays, **_store(site).load(up_to)})


def _store(site: Site) -> Store:
    if site.store is None:
        raise ConfigError(
            "strategies 'fedbn' and 'fedattnnorm' keep arrays at the site and need a folder. Set `out`, or the site's "
            "`state`."
        )
    return Store(site.store)
