"""One door to every model: checked arguments, seeded initialisation, a probe that must come out finite."""

import torch
from torch import Tensor

from common.attention.anatomy import disc, lean_on_anatomy
from common.attention.base import AttentionModel
from common.attention.personal import personalise
from common.config import ModelSection
from common.errors import ConfigError
from common.items import are_bags, item_shape, need_images
from common.models import BAG_MODELS, MODELS
from common.models.amplitude import AmplitudeNorm
from common.models.batch_norm import use_batch_norm
from common.models.representation import make_probabilistic
from common.seeds import derive

SMALLEST_IMAGE = 16
PROBED = 8
"""Instances of the bag with which a model is tried."""


def build_model(
    settings: ModelSection, channels: int, outputs: int, image_size: int, seed: int, dense: bool = False
) -> AttentionModel:
    """Build the model that the settings name, with initial arrays that depend on `seed` alone.

    Args:
        settings: Name and width.
        channels: 1 (grey) or 3 (colour); one more than the features where the data are bags.
        outputs: Channels of the head.
        image_size: Side of the images in pixels; BAG_SIDE where the data are bags.
        seed: The run's seed; the global random state stays as it is.
        dense: Whether the task wants one logit per pixel.

    Raises:
        ConfigError: Unknown name, impossible shape, a classifier for a segmentation task, a model of images for bags,
            and the reverse.
    """
    _check(channels, outputs, image_size)
    builder = MODELS.load(settings.name)
    _check_kind(settings, channels, image_size, dense)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "model"))
        model: AttentionModel = builder(settings, channels, outputs, image_size)
        _check_dense(settings, model, dense)
        if settings.batch_norm:
            use_batch_norm(model)
        if settings.personal_attention:
            personalise(model)
        if settings.amplitude:
            need_images("'model.amplitude' = true", image_size)
            model.before = AmplitudeNorm(channels, image_size, image_size)
        if settings.representation:
            make_probabilistic(model, max(2, outputs))
        if settings.anatomy_bias:
            need_images(f"'model.anatomy-bias' = {settings.anatomy_bias!r}", image_size)
            lean_on_anatomy(model, disc(image_size, image_size))
        _probe(settings, model, torch.randn(1, *item_shape(channels, image_size, PROBED)).clamp(-1, 1), outputs)
    return model


def _check(channels: int, outputs: int, image_size: int) -> None:
    if are_bags(image_size) and channels < 2:
        raise ConfigError("the instances of a bag have no feature. Needed is one at least; extract features anew.")
    if not are_bags(image_size) and channels not in (1, 3):
        raise ConfigError(f"images have {channels} channels. Allowed are 1 (grey) and 3 (colour); convert the images.")
    if outputs < 1:
        raise ConfigError(f"the model is asked for {outputs} outputs. At least 1 is needed; name the classes.")
    if not are_bags(image_size) and image_size < SMALLEST_IMAGE:
        raise ConfigError(
            f"images have a side of {image_size} pixels. At least {SMALLEST_IMAGE} are needed; set `data.image-size`."
        )


def _check_kind(settings: ModelSection, channels: int, image_size: int, dense: bool) -> None:
    bags = are_bags(image_size)
    if bags and dense:
        raise ConfigError(
            "the task wants one answer per pixel, and the data are bags of instances. Allowed is one answer per bag; "
            "set `task.name` to binary, multiclass or multilabel."
        )
    if bags != (settings.name in BAG_MODELS):
        found = f"bags of instances with {channels - 1} features" if bags else f"images of {image_size} pixels a side"
        fitting = [name for name in MODELS if (name in BAG_MODELS) == bags]
        raise ConfigError(
            f"model {settings.name!r} takes {'images' if bags else 'bags of instances'}, and the data are {found}. Set "
            f"`model.name` to {' or '.join(sorted(fitting))}, or choose another `data.name`."
        )


def _check_dense(settings: ModelSection, model: AttentionModel, dense: bool) -> None:
    if model.dense == dense:
        return
    small = settings.model_copy(update={"width": 8})
    images = [name for name in MODELS if name not in BAG_MODELS]
    fitting = [name for name in images if MODELS.load(name)(small, 1, 1, 32).dense == dense]
    gives, wants = ("pixel", "image") if model.dense else ("image", "pixel")
    raise ConfigError(
        f"model {settings.name!r} gives one answer per {gives} and the task wants one per {wants}. "
        f"Set `model.name` to {' or '.join(sorted(fitting))}, or choose another `task.name`."
    )


def _probe(settings: ModelSection, model: AttentionModel, image: Tensor, outputs: int) -> None:
    training = model.training
    with torch.no_grad():
        logits = model.eval()(image)
    model.train(training)
    expected = (1, outputs, *image.shape[2:]) if model.dense else (1, outputs)
    if logits.shape != expected or not logits.isfinite().all():
        raise ConfigError(
            f"model {settings.name!r} with width {settings.width} gives {tuple(logits.shape)}, "
            f"{int((~logits.isfinite()).sum())} not finite, for an item of {tuple(image.shape)}. Expected is "
            f"{tuple(expected)}, all finite; change `model.width` or `data.image-size`."
        )
