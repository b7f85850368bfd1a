"""What every explanation promises, which answer it explains, and how a model is asked without leaving a trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from common.attention.base import AttentionModel, AttentionSite
from common.attention.maps import spread
from common.attention.signature import evaluating
from common.errors import AttentionError
from common.items import need_images, side_of


class Explanation(Protocol):
    """Contract of every part: a map of the image for one answer of the model."""

    def fits(self, model: AttentionModel) -> str:
        """Say why this model cannot be explained so, and what to do; empty where it can."""
        ...

    def __call__(self, model: AttentionModel, images: Tensor, targets: Tensor | None = None) -> Tensor:
        """Explain the answer for `targets`, or what the model says.

        The model is in eval mode meanwhile and is left as it was: modes, hooks, gradients.

        Shapes: images [B, C, H, W] in [-1, 1], targets int64 [B] (a class; 0 or 1 with a single logit) -> float32
        [B, H, W], not negative, sum 1 per image; nothing anywhere counts as uniform.

        Raises:
            AttentionError: The model does not fit, targets are no classes of the model, or a map is not finite.
        """
        ...


def refuse_misfit(
    explanation: Explanation, model: AttentionModel, images: Tensor, targets: Tensor | None = None
) -> None:
    """Refuse a model that does not fit, images that are not [B, C, H, W], and what cannot be their targets.

    Raises:
        AttentionError: As said.
        ConfigError: The batch is of bags.
    """
    need_images("an explanation", side_of(images))
    if reason := explanation.fits(model):
        raise AttentionError(reason)
    if images.ndim != 4:
        raise AttentionError(
            f"images have shape {tuple(images.shape)}. Explanations are drawn on [B, C, H, W]; cut volumes into slices."
        )
    if targets is not None and (targets.dtype != torch.int64 or targets.shape != images.shape[:1]):
        raise AttentionError(
            f"targets are {str(targets.dtype).removeprefix('torch.')} of shape {tuple(targets.shape)} for "
            f"{len(images)} images. Allowed is one class per image, as int64; leave them out to explain what the model "
            f"says."
        )


@contextmanager
def asking(model: AttentionModel) -> Iterator[None]:
    """Put every submodule in eval mode and let gradients flow; afterwards each has its own mode back."""
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        yield


def asked(images: Tensor) -> Tensor:
    """Give images from which gradients flow, even where every weight is frozen; made inside `asking`."""
    return images.detach().clone().requires_grad_()  # a clone: tensors of inference mode enter no graph


@contextmanager
def heeding(model: AttentionModel, targets: Tensor | None) -> Iterator[None]:
    """Refuse targets that are no classes of the model as soon as it answers, for maps that know no class."""
    hook = model.register_forward_hook(lambda module, inputs, logits: check_targets(logits, targets))
    try:
        yield
    finally:
        hook.remove()


def answers(logits: Tensor, targets: Tensor | None) -> Tensor:
    """Give, per image, the number whose cause is asked for.

    - One logit: the logit for class 1, minus the logit for class 0.
    - Several: the target's logit.
    - Per pixel: the mean of the target's logit over the pixels that are predicted as the target, over all if none is.
      With several logits class 0 is the background; without a target each pixel of foreground counts with its own.

    Shapes: logits [B, K] or [B, K, H, W], targets [B] -> [B].

    Raises:
        AttentionError: Not one target per image, or one outside the classes.
    """
    check_targets(logits, targets)
    if logits.ndim == 2:
        wanted = predicted(logits) if targets is None else targets
        if logits.shape[1] == 1:
            return torch.where(wanted == 1, logits[:, 0], -logits[:, 0])
        return logits.gather(1, wanted[:, None])[:, 0]
    return _dense(logits.flatten(2), targets)


def _dense(logits: Tensor, targets: Tensor | None) -> Tensor:
    if logits.shape[1] == 1:
        sign = 1 if targets is None else torch.where(targets == 1, 1, -1)[:, None]
        values = logits[:, 0] * sign
        chosen = values > 0
    elif targets is None:
        values, classes = logits.max(1)
        chosen = classes > 0
    else:
        values = logits.gather(1, targets[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]
        chosen = logits.argmax(1) == targets[:, None]
    chosen = torch.where(chosen.any(1, keepdim=True), chosen, torch.ones_like(chosen))
    return (values * chosen).sum(1) / chosen.sum(1)


def predicted(logits: Tensor) -> Tensor:
    """Give the class that the model says. Shapes: [B, K] -> int64 [B]; a single logit says 0 or 1."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def check_targets(logits: Tensor, targets: Tensor | None) -> None:
    """Refuse targets [B] that are not one class per image.

    Raises:
        AttentionError: As said.
    """
    if targets is None:
        return
    classes = max(2, logits.shape[1])
    shape = tuple(targets.shape)
    if shape != (len(logits),) or not bool(((targets >= 0) & (targets < classes)).all()):
        raise AttentionError(
            f"targets of shape {shape} come with {len(logits)} images and {classes} classes. Allowed is one class per "
            f"image, 0 to {classes - 1}; leave them out to explain what the model says."
        )


def finished(maps: Tensor, images: Tensor) -> Tensor:
    """Bring maps [B, h, w] to the images' grid and to a sum of one, cut off from the graph.

    Raises:
        AttentionError: They hold values that are not finite.
    """
    maps = maps.detach().float()
    if not torch.isfinite(maps).all():
        raise AttentionError(
            "an explanation holds values that are not finite. The model's weights or gradients diverged; lower the "
            "learning rate and train again."
        )
    # Gradients can be tiny: scaled first, so that they are not lost beside what keeps an empty map from dividing by 0.
    scaled = maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return spread(scaled, (images.shape[2], images.shape[3]))


def chain(model: AttentionModel) -> tuple[AttentionSite, ...]:
    """Give the self-attention sites whose tokens correspond: the same grid in the plane and class token, from first on.

    Empty where the model has none, or where layers differ so that rows cannot be followed from one to the next.
    """
    sites = tuple(site for site in model.attention_sites if site.kind == "self-attention")
    same = {(site.grid, site.cls) for site in sites}
    return sites if len(same) == 1 and len(sites[0].grid or ()) == 2 else ()


def start_row(site: AttentionSite, tokens: Tensor) -> Tensor:
    """Give where a walk back through the layers begins: at the class token, or at all tokens alike. [B, N]."""
    count, size = tokens.shape[0], tokens.shape[-1]
    row = torch.full((count, size), 1 / size, dtype=torch.float32, device=tokens.device)
    if site.cls:
        row.zero_()[:, 0] = 1
    return row


def on_grid(site: AttentionSite, row: Tensor) -> Tensor:
    """Lay a row over the tokens on their grid, the class token left out. Shapes: [B, N] -> [B, h, w]."""
    return row[:, int(site.cls) :].reshape(len(row), *(site.grid or ()))
