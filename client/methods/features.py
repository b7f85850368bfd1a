"""What the head of a model sees: read from the forward pass itself, so that it has its gradient and costs nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from common.attention.base import AttentionModel


class Heard:
    """The features of the last forward pass, one vector per image: the mean over places where there are any. [B, D]."""

    def __init__(self) -> None:
        self.features = torch.zeros(0)

    def hear(self, head: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Take the head's input."""
        self.features = inputs[0].flatten(2).mean(2) if inputs[0].ndim > 2 else inputs[0]


@contextmanager
def listening(model: AttentionModel) -> Iterator[Heard]:
    """Listen to the head while entered."""
    heard = Heard()
    handle = model.get_submodule("head").register_forward_hook(heard.hear)
    try:
        yield heard
    finally:
        handle.remove()


@torch.no_grad()
def features_of(model: AttentionModel, images: Tensor) -> Tensor:
    """Give the features of images, [B, D], without gradient; the model's mode stays as it is."""
    with listening(model) as heard:
        model(images)
    return heard.features.float()
