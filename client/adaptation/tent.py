"""TENT: make the model sure of itself, by the scales and shifts of its normalisation layers."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from client.adaptation.affine import affine_names, no_affine, parameters_of
from client.adaptation.answers import entropy, log_probabilities
from client.adaptation.base import Adaptation
from client.adaptation.batch_norm import mixed, replace_batch_norms
from client.adaptation.descent import Descent, DescentSettings
from common.attention.base import AttentionModel


class TentSettings(DescentSettings):
    """Defaults: the paper's for CIFAR-10-C."""

    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="how a gradient becomes a step")
    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="step size")
    steps: int = Field(default=1, ge=1, le=100, description="steps per batch")


class Tent(Adaptation):
    """min mean H(p(x)); predicts before its update. BatchNorm, where there is any, takes the batch's statistics.

    Segmentation: the mean is over pixels. It collapses on long streams and where labels arrive in order.

    Source: Wang et al. 2021, "Tent: Fully Test-Time Adaptation by Entropy Minimization".
    """

    Settings = TentSettings
    name = "tent"
    dense = True
    settings: TentSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for normalisation layers."""
        return no_affine(model)

    def adapted(self) -> tuple[str, ...]:
        """Name the scales and shifts."""
        return affine_names(self.model)

    def _prepare(self) -> None:
        replace_batch_norms(self.model, mixed(0))

    def _begin(self) -> None:
        self._descent = Descent(parameters_of(self.model, self.adapted()), self.settings)

    def _adapt(self, images: Tensor) -> Tensor:
        logits = first = self.model(images)
        for step in range(self.settings.steps):
            if step:
                logits = self.model(images)
            self._descent.step(entropy(log_probabilities(logits)).mean(), self.counts)
        return self.told(first)
