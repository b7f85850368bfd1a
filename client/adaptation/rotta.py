"""RoTTA: learn from a balanced memory of the stream, from a slow teacher, with slow statistics."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from client.adaptation.affine import affine_names, no_affine, parameters_of
from client.adaptation.answers import classes_of, entropy, log_probabilities, most_entropy
from client.adaptation.base import Adaptation
from client.adaptation.batch_norm import TestBatchNorm, replace_batch_norms
from client.adaptation.descent import Descent, DescentSettings
from client.adaptation.memory import BalancedMemory
from client.adaptation.teacher import disagreement, follow, teacher_of
from client.adaptation.views import views
from common.attention.base import AttentionModel


class RottaSettings(DescentSettings):
    """Defaults: the paper's."""

    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="how a gradient becomes a step")
    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="step size")
    capacity: int = Field(default=64, ge=2, le=4096, description="images in memory, which stay in the process")
    every: int = Field(default=64, ge=1, le=4096, description="images between updates")
    teacher_rate: float = Field(default=0.001, ge=0, le=1, description="ν: how fast the teacher follows")
    statistics_rate: float = Field(default=0.05, ge=0, le=1, description="α: how fast BatchNorm's statistics follow")


class Rotta(Adaptation):
    """min Σ E(age) CE(student on a view, teacher) over the memory, E(a) = 1/(1 + e^a); the teacher predicts before.

    The paper is written for BatchNorm, whose statistics become a running mean. A model without it keeps the rest:
    memory, teacher, and the scales and shifts of the normalisation that it has.

    Source: Yuan et al. 2023, "Robust Test-Time Adaptation in Dynamic Scenarios".
    """

    Settings = RottaSettings
    name = "rotta"
    settings: RottaSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for normalisation layers."""
        return no_affine(model)

    def adapted(self) -> tuple[str, ...]:
        """Name scales and shifts, and running statistics."""
        return (*affine_names(self.model), *statistics_names(self.model))

    def _prepare(self) -> None:
        self._learning = False
        replace_batch_norms(self.model, self._robust)

    def _begin(self) -> None:
        self.teacher = teacher_of(self.model)
        self._descent = Descent(parameters_of(self.model, affine_names(self.model)), self.settings)
        self.memory: BalancedMemory | None = None
        self._since = 0

    def _adapt(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            logits = self.teacher(images)
            log_p = log_probabilities(logits)
            unsure = entropy(log_p) / most_entropy(logits.shape[1])
        if self.memory is None:
            self.memory = BalancedMemory(self.settings.capacity, classes_of(logits.shape[1]))
        offered = zip(images, log_p.argmax(1).tolist(), unsure.tolist(), strict=True)
        for image, label, level in offered:
            self.memory.add(image, label, level)
            self._since += 1
            if self._since >= self.settings.every:
                self._since = 0
                self._learn(*self.memory.images())
        return self.told(logits)

    def _learn(self, images: Tensor, ages: Tensor) -> None:
        self._learning = True
        try:
            with torch.no_grad():
                taught = log_probabilities(self.teacher(images)).exp()
            seen = views(images, self.random)
            loss = (disagreement(self.model(seen), taught) * torch.sigmoid(-ages).to(images)).mean()
        finally:
            self._learning = False
        if self._descent.step(loss, self.counts):
            follow(self.teacher, self.model, 1 - self.settings.teacher_rate)

    def _robust(self, layer: TestBatchNorm, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        if not self._learning:
            return layer.running_mean, layer.running_var
        return keep_running(layer, mean, variance, self.settings.statistics_rate)

    def _predict(self, images: Tensor) -> Tensor:
        return self.told(self.teacher(images))


def keep_running(layer: TestBatchNorm, mean: Tensor, variance: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Move a layer's statistics towards the batch's and give them; gradients run through the batch's share."""
    mean, variance = torch.lerp(layer.running_mean, mean, rate), torch.lerp(layer.running_var, variance, rate)
    with torch.no_grad():
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
    return mean, variance


def statistics_names(model: AttentionModel) -> tuple[str, ...]:
    """Name the running statistics of replaced BatchNorm layers."""
    paths = [path for path, part in model.named_modules() if isinstance(part, TestBatchNorm)]
    return tuple(f"{path}.{name}" for path in paths for name in ("running_mean", "running_var"))
