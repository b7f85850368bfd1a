"""MEMO: for each image alone, make the mean answer over its views sure."""

import torch
from pydantic import Field
from torch import Tensor

from client.adaptation.answers import entropy, log_probabilities
from client.adaptation.base import Adaptation
from client.adaptation.batch_norm import mixed, replace_batch_norms
from client.adaptation.descent import Descent, DescentSettings
from client.adaptation.views import views

PIECE = 64
"""Images in one pass."""


class MemoSettings(DescentSettings):
    """Defaults: the paper's for ResNets, with 64 views and momentum off, since a single step has none."""

    views: int = Field(default=64, ge=2, le=1024, description="random views of each image")
    steps: int = Field(default=1, ge=1, le=100, description="steps per image")
    source_weight: float = Field(default=16, ge=0, le=1e9, description="of BatchNorm, where there is any: as bn-adapt")


class Memo(Adaptation):
    """min H(mean over views of p) by all parameters; predicts each image after its update, then resets.

    An image never helps the next one, so `predict` is the shipped model. Costs `views` times a training pass per image.

    Source: Zhang et al. 2022, "MEMO: Test Time Robustness via Adaptation and Augmentation", algorithm 1.
    """

    Settings = MemoSettings
    name = "memo"
    dense = True
    settings: MemoSettings

    def adapted(self) -> tuple[str, ...]:
        """Name all parameters; they are back in place when `adapt` returns."""
        return tuple(name for name, _ in self.model.named_parameters())

    def _prepare(self) -> None:
        replace_batch_norms(self.model, mixed(self.settings.source_weight))

    def _begin(self) -> None:
        self._descent = Descent(self.model.parameters(), self.settings)

    def _adapt(self, images: Tensor) -> Tensor:
        return torch.cat([self._one(image[None]) for image in images])

    def _one(self, image: Tensor) -> Tensor:
        for _ in range(self.settings.steps):
            drawn = views(image.expand(self.settings.views, -1, -1, -1), self.random, shift=not self.model.dense)
            log_p = torch.cat([log_probabilities(self.model(part)) for part in torch.split(drawn, PIECE)])
            mean = log_p.exp().mean(0, keepdim=True)
            marginal = entropy(mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).mean()
            self._descent.step(marginal, self.counts)
        with torch.no_grad():
            answer = self._predict(image)
        self._restore()
        self._descent.forget()
        return answer
