"""The ClientApp: who are you, train, evaluate, sum securely. What is done lives elsewhere; here it is taken apart."""

from functools import lru_cache

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from client.alone import judge_alone, train_alone
from client.charge import check_cohort
from client.distance import tell_distance
from client.guard import guarded
from client.pooled import judge_pooled, train_pooled
from client.secure import Notes, answer
from client.site import Site, open_site
from common.allocator import keep_freed_memory
from common.arrays import Arrays, load_arrays
from common.attention.base import AttentionModel
from common.config import ModelSection, RunConfig, run_config
from common.data.splits import SPLITS
from common.errors import ProtocolError
from common.messages import (
    DistanceRequest,
    EvaluateRequest,
    Hello,
    HelloRequest,
    SumRequest,
    TrainRequest,
    pack,
    unpack,
)
from common.models.build import build_model
from common.trees import refuse_two_trees

refuse_two_trees(__file__)

NOTES = "notes"
# A plain assignment: Flower's loader does not see an annotated one.
app = ClientApp()


@app.query()
@guarded
def hello(message: Message, context: Context) -> Message:
    """Say who this site is."""
    config, site = _open(context)
    if unpack(message.content, HelloRequest).config_digest != config.digest():
        raise ProtocolError("the server and this site read different settings for this run. Start the run anew.")
    check_cohort(config, site)
    # Nobody needs a count: under privacy, or a budget, it is a release, and secure sums hide it.
    open_counts = not config.pooled and site.budget is None
    body = Hello(
        site=site.name,
        role=site.data.role,
        train_images=len(site.data.train) if open_counts else 0,
        train_patients=site.patients if open_counts else 0,
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
    if config.pooled:
        return Message(pack(train_pooled(config, site, _notes(context), model, request)), reply_to=message)
    return Message(pack(train_alone(config, site, model, request)), reply_to=message)


@app.evaluate()
@guarded
def evaluate(message: Message, context: Context) -> Message:
    """Judge the global arrays on one split and send sums."""
    config, site = _open(context)
    request = unpack(message.content, EvaluateRequest)
    if request.split not in SPLITS:
        raise ProtocolError(f"split {request.split!r} is not known. Allowed are {', '.join(SPLITS)}.")
    model = _model(config, site, request.arrays)
    if config.pooled:
        return Message(pack(judge_pooled(config, site, _notes(context), model, request)), reply_to=message)
    return Message(pack(judge_alone(config, site, model, request)), reply_to=message)


@app.query("secure")
@guarded
def secure(message: Message, context: Context) -> Message:
    """Answer one stage of a secure sum."""
    config, site = _open(context)
    request = unpack(message.content, SumRequest)
    return Message(pack(answer(config, site, _notes(context), request)), reply_to=message)


@app.query("distance")
@guarded
def distance(message: Message, context: Context) -> Message:
    """Tell how far this site's attention lies from the others', with noise."""
    config, site = _open(context)
    request = unpack(message.content, DistanceRequest)
    model = _model(config, site, request.arrays)
    return Message(pack(tell_distance(config, site, model, request)), reply_to=message)


def _notes(context: Context) -> Notes:
    """Give what this client noted at earlier messages; Flower keeps it for the run."""
    if NOTES not in context.state.config_records:
        context.state[NOTES] = ConfigRecord()
    return context.state.config_records[NOTES]


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
