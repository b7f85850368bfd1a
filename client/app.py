"""The ClientApp: who are you, train, evaluate."""

from functools import lru_cache

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.evaluation import LossSum, metric_sums, predict
from client.extras import Extras
from client.guard import guarded
from client.guidance.prepare import prepare, remember
from client.signature import measure
from client.site import Site, open_site
from client.store import Store
from client.training import train as train_locally
from common.allocator import keep_freed_memory
from common.arrays import Arrays, load_arrays, model_arrays, update_between
from common.attention.base import AttentionModel
from common.config import ModelSection, RunConfig, run_config
from common.data.base import Dataset
from common.data.splits import SPLITS
from common.errors import ConfigError, ProtocolError
from common.messages import EvaluateReply, EvaluateRequest, Hello, HelloRequest, TrainReply, TrainRequest, pack, unpack
from common.models.build import build_model
from common.seeds import derive
from common.trees import refuse_two_trees

refuse_two_trees(__file__)

# A plain assignment: Flower's loader does not see an annotated one.
app = ClientApp()


@app.query()
@guarded
def hello(message: Message, context: Context) -> Message:
    """Say who this site is."""
    config, site = _open(context)
    if unpack(message.content, HelloRequest).config_digest != config.digest():
        raise ProtocolError("the server and this site read different settings for this run. Start the run anew.")
    body = Hello(
        site=site.name,
        role=site.data.role,
        train_images=len(site.data.train),
        train_patients=len(set(site.data.train.patients.tolist())),
        classes=site.federation.classes,
        mask_classes=site.federation.mask_classes,
        channels=site.federation.channels,
        image_size=site.federation.image_size,
    )
    return Message(pack(body), reply_to=message)


@app.train()
@guarded
def train(message: Message, context: Context) -> Message:
    """Train one round and send the update, with the signature if asked."""
    config, site = _open(context)
    request = unpack(message.content, TrainRequest)
    if site.data.role != "source":
        raise ProtocolError(f"site {site.name!r} is held out and never trains. Leave it out of the cohort.")
    model = _model(config, site, request.arrays)
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
    body = TrainReply(
        site=site.name,
        update=update_between(arrays, request.arrays),
        images=trained.images,
        loss_sum=trained.loss_sum,
        signature=signature,
        health=health,
    )
    return Message(pack(body), reply_to=message)


@app.evaluate()
@guarded
def evaluate(message: Message, context: Context) -> Message:
    """Judge the global arrays on one split and send sums."""
    config, site = _open(context)
    request = unpack(message.content, EvaluateRequest)
    if request.split not in SPLITS:
        raise ProtocolError(f"split {request.split!r} is not known. Allowed are {', '.join(SPLITS)}.")
    data: Dataset = getattr(site.data, request.split)
    model = _model(config, site, request.arrays)
    signature = health = None
    if request.measure:
        signature, health = measure(
            model, site.data.train, config.attention, derive(config.seed, "signature", site.name)
        )
    _personalise(model, site, request.arrays, request.keep_local, up_to=request.round)
    loss = LossSum()
    predictions = predict([model], site.task, data, loss)
    body = EvaluateReply(
        site=site.name,
        images=len(data),
        loss_sum=loss.value,
        sums=metric_sums(site.task, predictions),
        signature=signature,
        health=health,
    )
    return Message(pack(body), reply_to=message)


def _open(context: Context) -> tuple[RunConfig, Site]:
    return _opened(tuple(sorted(context.run_config.items())), tuple(sorted(context.node_config.items())))


@lru_cache(maxsize=256)
def _opened(run: tuple[tuple[str, object], ...], node: tuple[tuple[str, object], ...]) -> tuple[RunConfig, Site]:
    """Open a site once per process; its images stay in memory between rounds."""
    config = run_config(dict(run))
    site = open_site(config, dict(node))
    keep_freed_memory()  # from here on the process trains and judges
    return config, site


def _model(config: RunConfig, site: Site, arrays: Arrays) -> AttentionModel:
    federation, task = site.federation, site.task
    model = _built(config.model, federation.channels, task.outputs, federation.image_size, task.dense).to(site.device)
    load_arrays(model, arrays)
    return model


@lru_cache(maxsize=4)
def _built(settings: ModelSection, channels: int, outputs: int, image_size: int, dense: bool) -> AttentionModel:
    """Build a model once per process; its arrays are replaced before every use."""
    return build_model(settings, channels, outputs, image_size, seed=0, dense=dense)


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
