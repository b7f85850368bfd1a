"""One door to every model: checked arguments, seeded initialisation, a probe that must come out finite."""

import torch
from torch import Tensor

from common.attention.anatomy import disc, lean_on_anatomy
from common.attention.base import AttentionModel
from common.attention.personal import personalise
from common.config import ModelSection
from common.errors import ConfigError
from common.models import MODELS
from common.models.amplitude import AmplitudeNorm
from common.models.batch_norm import use_batch_norm
from common.models.representation import make_probabilistic
from common.seeds import derive

SMALLEST_IMAGE = 16


def build_model(
    settings: ModelSection, channels: int, outputs: int, image_size: int, seed: int, dense: bool = False
) -> AttentionModel:
    """Build the model that the settings name, with initial arrays that depend on `seed` alone.

    Args:
        settings: Name and width.
        channels: 1 (grey) or 3 (colour).
        outputs: Channels of the head.
        image_size: Side of the images in pixels.
        seed: The run's seed; the global random state stays as it is.
        dense: Whether the task wants one logit per pixel.

    Raises:
        ConfigError: Unknown name, impossible shape, or a classifier for a segmentation task and the reverse.
    """
    _check(channels, outputs, image_size)
    builder = MODELS.load(settings.name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "model"))
        model: AttentionModel = builder(settings, channels, outputs, image_size)
        _check_dense(settings, model, dense)
        if settings.batch_norm:
            use_batch_norm(model)
        if settings.personal_attention:
            personalise(model)
        if settings.amplitude:
            model.before = AmplitudeNorm(channels, image_size, image_size)
        if settings.representation:
            make_probabilistic(model, max(2, outputs))
        if settings.anatomy_bias:
            lean_on_anatomy(model, disc(image_size, image_size))
        _probe(settings, model, torch.randn(1, channels, image_size, image_size).clamp(-1, 1), outputs)
    return model


def _check(channels: int, outputs: int, image_size: int) -> None:
    if channels not in (1, 3):
        raise ConfigError(f"images have {channels} channels. Allowed are 1 (grey) and 3 (colour); convert the images.")
    if outputs < 1:
        raise ConfigError(f"the model is asked for {outputs} outputs. At least 1 is needed; name the classes.")
    if image_size < SMALLEST_IMAGE:
        raise ConfigError(
            f"images have a side of {image_size} pixels. At least {SMALLEST_IMAGE} are needed; set `data.image-size`."
        )


def _check_dense(settings: ModelSection, model: AttentionModel, dense: bool) -> None:
    if model.dense == dense:
        return
    small = settings.model_copy(update={"width": 8})
    fitting = [name for name in MODELS if MODELS.load(name)(small, 1, 1, 32).dense == dense]
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
            f"{int((~logits.isfinite()).sum())} not finite, for an image of {tuple(image.shape)}. Expected is "
            f"{tuple(expected)}, all finite; change `model.width` or `data.image-size`."
        )
