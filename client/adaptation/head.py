"""The classifier at a model's end, for methods that leave it alone or replace it."""

import torch
from torch import Tensor, nn

from common.attention.base import AttentionModel


def no_head(model: AttentionModel) -> str:
    """Say that the model has no linear classifier after its features, or nothing."""
    if isinstance(getattr(model, "head", None), nn.Linear):
        return ""
    return "it reads the weights of a linear layer called `head` after the features, and the model has none"


def head_of(model: AttentionModel) -> nn.Linear:
    """Give the classifier of a model for which `no_head` had nothing to say."""
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    return head


def class_weights(model: AttentionModel) -> Tensor:
    """Give a weight vector per class, [K, D]: of a single logit w · z, ∓w / 2, whose difference is the same logit."""
    weight = head_of(model).weight.detach()
    return torch.cat([-weight / 2, weight / 2]) if len(weight) == 1 else weight


def class_biases(model: AttentionModel) -> Tensor:
    """Give the biases that go with `class_weights`, [K]."""
    bias = head_of(model).bias.detach()
    return torch.cat([-bias / 2, bias / 2]) if len(bias) == 1 else bias


def body_names(model: nn.Module) -> tuple[str, ...]:
    """Name all parameters but the classifier's."""
    return tuple(name for name, _ in model.named_parameters() if not name.startswith("head."))
