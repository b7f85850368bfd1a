"""Whether an engine may be trusted with a model: it is tried once beside the general one, on images of noise.

The trial finds what no list of layers can: layers in which images of a batch meet, a parameter that is read behind its
layer's back, a batch that is folded so that images only seem to stay apart.
"""

import copy
import logging

import torch
from torch import Tensor, nn

from client.private.base import Clip, Clipped, Engine, ImageLosses, learning
from client.private.per_sample import per_sample
from common.data.base import Batch
from common.errors import UnsupportedModelError

log = logging.getLogger(__name__)
IMAGES = 3
CLOSE = 1e-4
"""Of the longest gradient; losses are of float32, the rest of float64."""
SHAKEN = 0.02
_known: dict[tuple[object, ...], str] = {}


def why_not(engine: Engine, model: nn.Module, losses: ImageLosses, batch: Batch) -> str:
    """Say why `engine` cannot take this model's gradients apart; empty if it can.

    A model is known by the names and kinds of its layers and by what of it learns; each is tried once in a process.
    The answer depends on no image: of `batch` only shapes, labels and masks are used.
    """
    layers = tuple((name, type(module)) for name, module in model.named_modules())
    known = (engine, layers, tuple(learning(model)))
    if known not in _known:
        _known[known] = _tried(engine, model, losses, batch)
        if _known[known]:
            log.warning("a faster way to single gradients is closed: %s", _known[known])
    return _known[known]


def _tried(engine: Engine, model: nn.Module, losses: ImageLosses, batch: Batch) -> str:
    few, clip = _few(batch), Clip(1.0)
    patients = torch.arange(IMAGES, device=few.images.device)
    try:
        mine = copy.deepcopy(model)
        with torch.random.fork_rng(devices=[]):
            engine(mine, losses, few, patients, clip)  # as it trains: what is drawn inside a layer shows only here
            few = Batch(images=few.images.double(), labels=few.labels, masks=few.masks)
            _still(mine)
            fast = engine(mine, losses, few, patients, clip)
            slow = per_sample(mine, losses, few, patients, clip)
    except UnsupportedModelError as error:
        return str(error)
    except (RuntimeError, TypeError, ValueError) as error:
        return (
            f"{type(model).__name__} cannot be taken apart layer by layer ({type(error).__name__}: {error}). Set "
            f"`privacy.engine` to per-sample."
        )
    if _same(fast, slow):
        return ""
    return (
        f"the gradients of {type(model).__name__}'s images are not those that each image has by itself: images meet in "
        f"a layer, or a parameter is used behind its layer's back. Set `privacy.engine` to per-sample."
    )


def _few(batch: Batch) -> Batch:
    index = torch.arange(IMAGES, device=batch.images.device) % len(batch.images)
    noise = torch.rand(IMAGES, *batch.images.shape[1:], generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch(
        images=noise.to(batch.images),
        labels=None if batch.labels is None else batch.labels[index],
        masks=None if batch.masks is None else batch.masks[index],
    )


def _still(model: nn.Module) -> None:
    """In float64, without dropout, and shaken, so that nothing hides behind a gate that starts at zero."""
    model.double()
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random).to(parameter), alpha=SHAKEN)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()


def _same(fast: Clipped, slow: Clipped) -> bool:
    if not torch.allclose(fast.norms, slow.norms, rtol=CLOSE):
        return False
    scale = max((float(each.abs().max()) for each in slow.total), default=0.0)
    return all(_within(mine, theirs, CLOSE * scale) for mine, theirs in zip(fast.total, slow.total, strict=True))


def _within(mine: Tensor, theirs: Tensor, most: float) -> bool:
    return bool(((mine - theirs).abs() <= most).all())
