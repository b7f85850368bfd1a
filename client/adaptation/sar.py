"""SAR: entropy of sure images only, in flat places, and back to the shipped model before it collapses."""

import math

from pydantic import Field
from torch import Tensor

from client.adaptation.affine import affine_names, no_affine, parameters_of
from client.adaptation.answers import classes_of, entropy, log_probabilities, most_entropy, per_image
from client.adaptation.base import Adaptation
from client.adaptation.batch_norm import mixed, replace_batch_norms
from client.adaptation.descent import Descent, DescentSettings
from client.adaptation.sharpness import worst_nearby
from common.attention.base import AttentionModel

PUBLISHED_FLOOR = 0.2
FLOOR_SHARE = PUBLISHED_FLOOR / math.log(1000)
"""The published floor as a share of ln K for the K of ImageNet, for which it was found: .029."""
LATE = 4
"""One in so many normalisation layers, the last ones, is left alone."""


class SarSettings(DescentSettings):
    """Defaults: the paper's for ResNet-50, but for the floor of entropy, which `published` brings back."""

    entropy_share: float = Field(
        default=0.4, gt=0, le=1, description="E0 as a share of ln K: images above teach nothing"
    )
    radius: float = Field(default=0.05, gt=0, le=10, description="how far away the worst place is looked for")
    memory: float = Field(default=0.9, ge=0, lt=1, description="decay of the mean entropy that is watched for collapse")
    published: bool = Field(
        default=False, description="reset below an entropy of 0.2 whatever K; at K = 2 a healthy model resets for ever"
    )


class Sar(Adaptation):
    """min mean H over images with H < E0, by a sharpness-aware step; predicts before its update.

    The mean entropy of what was learnt from is watched: below e_m the model is about to collapse and is reset.
    Published code has e_m = .2, which is .029 ln K for its thousand classes and .29 ln K for two: there .2 is the
    entropy of an answer of .949, so a healthy model resets without end. Ours is e_m = .029 ln K. The last quarter of
    the normalisation layers is left alone, as the paper leaves the last of four stages.

    Source: Niu et al. 2023, "Towards Stable Test-Time Adaptation in Dynamic Wild World".
    """

    Settings = SarSettings
    name = "sar"
    dense = True
    settings: SarSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for normalisation layers."""
        return no_affine(model)

    def adapted(self) -> tuple[str, ...]:
        """Name the scales and shifts of the first three quarters of the layers."""
        return early(affine_names(self.model))

    def _prepare(self) -> None:
        replace_batch_norms(self.model, mixed(0))

    def _begin(self) -> None:
        self._descent = Descent(parameters_of(self.model, self.adapted()), self.settings)
        self.mean: float | None = None

    def _adapt(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        answer = self.told(logits)
        most = self.settings.entropy_share * most_entropy(logits.shape[1])
        unsure = per_image(entropy(log_probabilities(logits)))
        chosen = unsure.detach() < most
        if not chosen.any() or not self._descent.gradient(unsure[chosen].mean()):
            self.counts.skipped += 1
            return answer
        with worst_nearby(self._descent.parameters, self.settings.radius):
            again = per_image(entropy(log_probabilities(self.model(images[chosen]))))
            still = again.detach() < most
            found = bool(still.any()) and self._descent.gradient(again[still].mean())
        self._finish(float(again.detach()[still].mean()) if found else None, logits.shape[1])
        return answer

    def _finish(self, level: float | None, outputs: int) -> None:
        """Step along the gradient found nearby, and watch the level of entropy there."""
        if level is None:
            self._descent.optimizer.zero_grad()
            self.counts.skipped += 1
            return
        self._descent.apply(self.counts)
        memory = self.settings.memory
        self.mean = level if self.mean is None else memory * self.mean + (1 - memory) * level
        if self.mean < floor(outputs, self.settings.published):
            self._restore()
            self._descent.forget()
            self.mean = None
            self.counts.resets += 1


def floor(outputs: int, published: bool) -> float:
    """Give e_m, the mean entropy below which the model is reset, in nats."""
    return PUBLISHED_FLOOR if published else FLOOR_SHARE * math.log(classes_of(outputs))


def early(names: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the last quarter of the layers, rounded up, but never all."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    kept = set(layers[: max(1, len(layers) - math.ceil(len(layers) / LATE))])
    return tuple(name for name in names if name.rpartition(".")[0] in kept)
