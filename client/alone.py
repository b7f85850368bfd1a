"""What a site sends where the server may see each site by itself: its update, its signature, its metric sums."""

from collections.abc import Callable

from client.charge import charged
from client.evaluation import LossSum, metric_sums, predict
from client.extras import Extras
from client.guidance.prepare import prepare, remember
from client.methods.begin import begin, finish
from client.own import own_arrays, own_store
from client.personal import MANNERS
from client.personal.base import LocalRound, Outcome
from client.signature import measure
from client.site import Site
from common.arrays import load_arrays, update_between
from common.attention.base import AttentionModel
from common.config import RunConfig
from common.data.base import Dataset
from common.errors import ProtocolError
from common.messages import TOGETHER, EvaluateReply, EvaluateRequest, TrainReply, TrainRequest
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
        method = begin(config, site, model, request)
        outcome = _train(config, site, model, request, Extras(request.mu, guidance, method=method))
        if outcome.kept:
            own_store(site).save(request.round, outcome.kept)
        update = update_between(outcome.arrays, request.arrays)
        told = finish(method, site, model, request.round, outcome.trained.steps)
        charge.leave({**update, **{f"told/{name}": array for name, array in told.items()}})
    return TrainReply(
        site=site.name,
        update=update,
        images=outcome.trained.images,
        loss_sum=outcome.trained.loss_sum,
        told=told,
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
        if request.own and site.data.role == "source":
            load_arrays(model, own_arrays(request.arrays, own_store(site).load(request.round)))
        loss = LossSum()
        sums = metric_sums(site.task, predict([model], site.task, data, loss))
        charge.leave(sums)
    return EvaluateReply(
        site=site.name, images=len(data), loss_sum=loss.value, sums=sums, signature=signature, health=health
    )


def _train(config: RunConfig, site: Site, model: AttentionModel, request: TrainRequest, extras: Extras) -> Outcome:
    """Train in the request's manner; an update is measured from the global arrays, whatever is the site's own."""
    if unknown := sorted(set(request.keep_local) - set(request.arrays)):
        raise ProtocolError(f"the server names {len(unknown)} arrays to keep that the model does not have.")
    if request.manner not in MANNERS:
        raise ProtocolError(f"the server asks to train {request.manner!r}. Known are {', '.join(MANNERS)}.")
    keeps = bool(request.keep_local) or request.manner != TOGETHER
    train: Callable[[LocalRound], Outcome] = MANNERS.load(request.manner)
    return train(
        LocalRound(
            model=model,
            task=site.task,
            data=site.data.train,
            settings=config.train,
            strategy=config.strategy,
            extras=extras,
            seed=derive(config.seed, "site", site.name, "round", request.round),
            arrays=request.arrays,
            names=request.keep_local,
            kept=own_store(site).load(request.round - 1) if keeps else {},
        )
    )
