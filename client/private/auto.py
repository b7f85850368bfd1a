"""Takes the fast engine where it is right, and the general one elsewhere."""

import logging

import torch
from torch import Tensor, nn

from client.private.base import Clip, Clipped, ImageLosses
from client.private.one_backward import one_backward
from client.private.per_sample import per_sample
from common.data.base import Batch
from common.errors import UnsupportedModelError

log = logging.getLogger(__name__)
COMPARED = 3
"""Patients on which the engines are compared before the fast one is trusted with a model."""
CLOSE = 1e-3
_fast: dict[tuple[str, ...], bool] = {}


def auto(model: nn.Module, losses: ImageLosses, batch: Batch, patients: Tensor, clip: Clip) -> Clipped:
    """See `Engine`. A model is known by the names and kinds of its layers; each is compared once in a process.

    The comparison also finds a parameter that a forward pass reads behind its layer's back, which hooks cannot see.
    """
    known = tuple(f"{name}:{type(module).__qualname__}" for name, module in model.named_modules())
    if known not in _fast:
        _fast[known] = _agree(model, losses, batch, patients, clip)
    return (one_backward if _fast[known] else per_sample)(model, losses, batch, patients, clip)


def _agree(model: nn.Module, losses: ImageLosses, batch: Batch, patients: Tensor, clip: Clip) -> bool:
    few = patients < COMPARED
    part = Batch(
        images=batch.images[few],
        labels=None if batch.labels is None else batch.labels[few],
        masks=None if batch.masks is None else batch.masks[few],
    )
    slow = per_sample(model, losses, part, patients[few], clip)
    try:
        fast = one_backward(model, losses, part, patients[few], clip)
    except UnsupportedModelError as error:
        log.info("single gradients are made one image at a time: %s", error)
        return False
    if torch.allclose(fast.norms, slow.norms, rtol=CLOSE):
        return True
    log.warning("a parameter is used behind its layer's back, or images are drawn anew; made one image at a time")
    return False
