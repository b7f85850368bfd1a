"""DELTA: statistics that do not jump from batch to batch, and a loss in which frequent classes count less."""

import torch
from pydantic import Field
from torch import Tensor

from client.adaptation.affine import affine_names, no_affine, parameters_of
from client.adaptation.answers import entropy, log_probabilities, rows
from client.adaptation.base import Adaptation
from client.adaptation.batch_norm import TestBatchNorm, replace_batch_norms
from client.adaptation.descent import Descent, DescentSettings
from client.adaptation.rotta import statistics_names
from common.attention.base import AttentionModel

TINY = 1e-8


class DeltaSettings(DescentSettings):
    """Defaults: the paper's for ImageNet-C on TENT."""

    statistics_memory: float = Field(default=0.95, ge=0, lt=1, description="decay of BatchNorm's running statistics")
    class_memory: float = Field(default=0.95, ge=0, lt=1, description="decay of the running class frequencies")


class Delta(Adaptation):
    """min Σ ω_i H(p_i) / Σ ω_i, ω = 1 / z of the image's own class, z the running class frequencies; predicts before.

    Renormalisation: BatchNorm standardises by running statistics, begun at the source's, while gradients run through
    the batch's. A model without BatchNorm keeps the weights. Segmentation: images are pixels.

    Source: Zhao et al. 2023, "DELTA: Degradation-Free Fully Test-Time Adaptation".
    """

    Settings = DeltaSettings
    name = "delta"
    dense = True
    settings: DeltaSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for normalisation layers."""
        return no_affine(model)

    def adapted(self) -> tuple[str, ...]:
        """Name scales and shifts, and running statistics."""
        return (*affine_names(self.model), *statistics_names(self.model))

    def _prepare(self) -> None:
        self._learning = False
        replace_batch_norms(self.model, self._renormalised)

    def _begin(self) -> None:
        self._descent = Descent(parameters_of(self.model, affine_names(self.model)), self.settings)
        self.frequency: Tensor | None = None

    def _adapt(self, images: Tensor) -> Tensor:
        self._learning = True
        try:
            logits = self.model(images)
        finally:
            self._learning = False
        log_p = rows(log_probabilities(logits))
        p = log_p.detach().exp()
        if self.frequency is None:
            self.frequency = torch.full_like(p[0], 1 / p.shape[1])
        weights = 1 / (self.frequency[p.argmax(1)] + TINY)
        self._descent.step((weights * entropy(log_p)).sum() / weights.sum(), self.counts)
        self.frequency = torch.lerp(p.mean(0), self.frequency, self.settings.class_memory)
        return self.told(logits)

    def _renormalised(self, layer: TestBatchNorm, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        if not self._learning:
            return layer.running_mean, layer.running_var
        return renormalised(layer, mean, variance, 1 - self.settings.statistics_memory)


def renormalised(layer: TestBatchNorm, mean: Tensor, variance: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Move the running statistics, and give ones of the same value through which the batch's gradients run.

    (x − μ_b) / σ_b · r + d with r = σ_b / σ and d = (μ_b − μ) / σ held constant is standardising by the deviation
    s = σ_b / r and the mean μ_b − d s.

    Source: Ioffe 2017, "Batch Renormalization".
    """
    batch = (variance + layer.eps).sqrt()
    with torch.no_grad():
        layer.running_mean.lerp_(mean, rate)
        layer.running_var.lerp_(variance, rate)
        running = (layer.running_var + layer.eps).sqrt()
        r, d = batch / running, (mean - layer.running_mean) / running
    deviation = batch / r
    return mean - d * deviation, deviation.square() - layer.eps
