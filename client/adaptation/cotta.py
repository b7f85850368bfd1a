"""CoTTA: learn from a slow teacher that looks from several sides, and let some weights go back home."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from client.adaptation.answers import log_probabilities, of_classes, per_image
from client.adaptation.base import Adaptation
from client.adaptation.batch_norm import mixed, replace_batch_norms
from client.adaptation.descent import Descent, DescentSettings
from client.adaptation.teacher import disagreement, follow, teacher_of
from client.adaptation.views import views

PUBLISHED_CONFIDENCE = 0.92
QUANTILE = 0.05


class CottaSettings(DescentSettings):
    """Defaults: the paper's for CIFAR-10-C, but for the threshold, which `published` brings back."""

    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="how a gradient becomes a step")
    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="step size")
    decay: float = Field(default=0.999, ge=0, le=1, description="of the teacher, per batch")
    views: int = Field(default=32, ge=1, le=1024, description="views that the teacher averages where it is unsure")
    restore: float = Field(default=0.01, ge=0, le=1, description="chance of each weight to go back, per batch")
    published: bool = Field(
        default=False, description="call a batch unsure below 0.92, not below the source's own 5 % quantile"
    )


class Cotta(Adaptation):
    """min CE(student, teacher); the teacher, an EMA of the student, predicts before the update.

    Where the shipped model's mean confidence on the batch is below p_th the teacher averages its answers over views.
    After each step every weight goes back to its shipped value with a small chance. All parameters move. p_th is the
    5 % quantile of the confidence on source images, as the paper chose its .92; views do not mirror or crop.

    Source: Wang et al. 2022, "Continual Test-Time Domain Adaptation".
    """

    Settings = CottaSettings
    name = "cotta"
    needs = ("confidence",)
    dense = True
    settings: CottaSettings

    def adapted(self) -> tuple[str, ...]:
        """Name all parameters."""
        return tuple(name for name, _ in self.model.named_parameters())

    def _prepare(self) -> None:
        replace_batch_norms(self.model, mixed(0))
        assert self.source.confidence is not None
        self.threshold = PUBLISHED_CONFIDENCE
        if not self.settings.published:
            self.threshold = quantile(self.source.confidence, QUANTILE)

    def _begin(self) -> None:
        self.teacher, self._home = teacher_of(self.model), teacher_of(self.model)
        self._descent = Descent(self.model.parameters(), self.settings)

    def _adapt(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            taught = self._taught(images)
        logits = self.model(images)
        if self._descent.step(disagreement(logits, taught).mean(), self.counts):
            follow(self.teacher, self.model, self.settings.decay)
            self._let_go()
        return of_classes(taught, logits.shape[1])

    def _taught(self, images: Tensor) -> Tensor:
        """Give the teacher's probabilities of all classes, averaged over views if the shipped model is unsure."""
        sure = per_image(log_probabilities(self._home(images)).max(1).values.exp()).mean()
        if sure >= self.threshold:
            return log_probabilities(self.teacher(images)).exp()
        shift = not self.model.dense
        drawn = (views(images, self.random, shift) for _ in range(self.settings.views))
        return torch.stack([log_probabilities(self.teacher(seen)).exp() for seen in drawn]).mean(0)

    @torch.no_grad()
    def _let_go(self) -> None:
        for name, parameter in self.model.named_parameters():
            gone = torch.rand(parameter.shape, generator=self.random) < self.settings.restore
            parameter.copy_(torch.where(gone.to(parameter.device), self._shipped[name], parameter))

    def _predict(self, images: Tensor) -> Tensor:
        return self.told(self.teacher(images))


def quantile(counts: Tensor, share: float) -> float:
    """Read a quantile of the confidence from its counts in equal bins of [0, 1], linear within a bin."""
    reached = counts.cumsum(0)
    wanted = share * float(reached[-1])
    place = int((reached < wanted).sum())
    below = float(reached[place - 1]) if place else 0.0
    inside = (wanted - below) / max(float(counts[place]), 1e-12)
    return (place + inside) / len(counts)
