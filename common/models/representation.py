"""A representation that is drawn, not computed: what the head sees while training is a normal law around the features.

Source: Nguyen et al. 2022, "FedSR: A Simple and Effective Domain Generalization Method for Federated Learning",
section 4.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionModel
from common.errors import ConfigError


class ClassLaws(nn.Module):
    """r(z | y): a normal law of the representation for each class, learnt with the model. Shapes: both [K, D]."""

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(classes, dim))
        self.raw = nn.Parameter(torch.ones(classes, dim))

    def of(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Give mean and standard deviation for each label, [B, D] both."""
        return self.centre[labels], F.softplus(self.raw)[labels]


class Representation(nn.Module):
    """p(z | x) = N(features, softplus(spread(features))²). It draws in training; otherwise z is the features.

    Shapes: features [B, D] -> z [B, D].
    """

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.spread = nn.Linear(dim, dim)
        self.laws = ClassLaws(classes, dim)

    def deviation(self, features: Tensor) -> Tensor:
        """Give the standard deviation of each entry."""
        return F.softplus(self.spread(features))

    def forward(self, features: Tensor) -> Tensor:
        """Draw z in training."""
        if not self.training:
            return features
        return features + self.deviation(features) * torch.randn_like(features)

    def before_head(self, head: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        """Stand before the head, as a hook: a method, for a copy of the model then has the copy's representation."""
        drawn: Tensor = self(inputs[0])
        return drawn


def make_probabilistic(model: AttentionModel, classes: int) -> None:
    """Let a classifier draw its representation; names of its arrays stay, those below `representation` are new.

    Raises:
        ConfigError: The model's head is no linear layer.
    """
    head = model.get_submodule("head")
    if not isinstance(head, nn.Linear):
        raise ConfigError(
            f"'model.representation' is set and the head of {type(model).__name__} is no linear layer. Take a "
            f"classifier, or leave 'model.representation' empty."
        )
    representation = Representation(classes, head.in_features)
    model.representation = representation
    head.register_forward_pre_hook(representation.before_head)
