"""What a model must be so that one patient's gradient is one patient's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from common.errors import UnsupportedModelError

MIXING: dict[type[nn.Module], str] = {
    nn.modules.batchnorm._BatchNorm: "GroupNorm",
    nn.MultiheadAttention: "common.attention's self-attention",
    nn.LSTM: "a layer without state across images",
    nn.GRU: "a layer without state across images",
}
"""What mixes the images of a batch, or hides its parameters from whoever takes gradients apart; what to use instead."""


def refuse_mixing(model: nn.Module) -> None:
    """Refuse layers that let one patient change another's gradient.

    BatchNorm in training mode does, frozen or not; InstanceNorm does when it keeps running statistics.

    Raises:
        UnsupportedModelError: As said, with the layer's name.
    """
    for name, module in model.named_modules():
        for kind, instead in MIXING.items():
            if isinstance(module, kind):
                raise UnsupportedModelError(
                    f"layer {name!r} is a {type(module).__name__}, in which images of a batch meet. Under privacy "
                    f"every patient stays apart; use {instead}."
                )
        if getattr(module, "track_running_stats", False):
            raise UnsupportedModelError(
                f"layer {name!r} is a {type(module).__name__} with running statistics, which no noise covers. Set "
                f"track_running_stats=False."
            )
        if getattr(module, "inplace", False):
            raise UnsupportedModelError(
                f"layer {name!r} is a {type(module).__name__} that works in place, so that what it was given is lost. "
                f"Set inplace=False."
            )


@contextmanager
def nothing_kept(model: nn.Module) -> Iterator[None]:
    """See that a model keeps nothing of the images that it saw: its buffers go out with it, and no noise covers them.

    Raises:
        UnsupportedModelError: A buffer changed.
    """
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    yield
    for name, buffer in model.named_buffers():
        if name not in before or not torch.equal(before[name], buffer):
            raise UnsupportedModelError(
                f"buffer {name!r} changed while the model was trained. Under privacy a model keeps nothing of images "
                f"but what is learnt, for no noise covers the rest; make it a parameter, or leave it out."
            )


@contextmanager
def explicit_attention(model: nn.Module) -> Iterator[None]:
    """Let attention layers take their explicit path, for the fused one has no rule for single images."""
    switches = [module for module in model.modules() if hasattr(module, "explicit")]
    before = [module.explicit for module in switches]
    for module in switches:
        module.explicit = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, each in zip(switches, before, strict=True):
            module.explicit = each
