"""ActMAD: bring mean and variance of every activation, place by place, back to the source's."""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from client.adaptation.activations import norm_layers, watching
from client.adaptation.base import Adaptation
from client.adaptation.descent import Descent, DescentSettings
from client.adaptation.source import Moments
from common.attention.base import AttentionModel


class ActmadSettings(DescentSettings):
    """Step: between the paper's 1e-3 (CIFAR) and 5e-5 (ImageNet). No label of the target chose it."""

    learning_rate: float = Field(default=2.5e-4, gt=0, le=10, description="step size")
    window: int = Field(
        default=32, ge=1, le=4096, description="images over which a small batch is averaged with those before it"
    )


class Actmad(Adaptation):
    """min Σ_layers mean |μ − μ_s| + mean |σ² − σ_s²| per channel and place; predicts before its update.

    Layers are the normalisation layers' outputs; all parameters move. Batches smaller than the window enter a running
    mean that begins at the source's, with the share of the window that they are: a single image has no variance of its
    own. Batches of the window's size or more are the paper's method.

    Source: Mirza et al. 2023, "ActMAD: Activation Matching to Align Distributions for Test-Time-Training".
    """

    Settings = ActmadSettings
    name = "actmad"
    needs = ("activations",)
    dense = True
    several = True
    settings: ActmadSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for normalisation layers."""
        if norm_layers(model):
            return ""
        return "it compares what normalisation layers put out with the source, and the model has none"

    def adapted(self) -> tuple[str, ...]:
        """Name all parameters."""
        return tuple(name for name, _ in self.model.named_parameters())

    def _begin(self) -> None:
        assert self.source.activations is not None
        self.running = {
            path: (moments.mean, moments.variance + moments.mean.square())
            for path, moments in self.source.activations.items()
        }
        self._descent = Descent(self.model.parameters(), self.settings)

    def _adapt(self, images: Tensor) -> Tensor:
        assert self.source.activations is not None
        with watching(self.model, list(self.running)) as found:
            logits = self.model(images)
        share = min(1.0, len(images) / self.settings.window)
        self.running, moments = advanced(self.running, found, share)
        self._descent.step(gap(moments, self.source.activations), self.counts)
        return self.told(logits)


Running = dict[str, tuple[Tensor, Tensor]]


def advanced(running: Running, found: Mapping[str, Tensor], share: float) -> tuple[Running, dict[str, Moments]]:
    """Move running means of values and squares by `share` towards the batch's, and give the moments with gradients.

    Shapes: found [B, *shape] by path; running, moments [*shape].
    """
    kept: Running = {}
    moments: dict[str, Moments] = {}
    for path, (mean, square) in running.items():
        values = found[path].float()
        mean, square = torch.lerp(mean, values.mean(0), share), torch.lerp(square, values.square().mean(0), share)
        moments[path] = Moments(mean, square - mean.square())
        if bool(mean.isfinite().all()) and bool(square.isfinite().all()):
            kept[path] = (mean.detach(), square.detach())
        else:
            kept[path] = running[path]
    return kept, moments


def gap(found: Mapping[str, Moments], wanted: Mapping[str, Moments]) -> Tensor:
    """Add up over layers the mean distance of means and of variances, a scalar."""
    parts = [
        (found[path].mean - aim.mean).abs().mean() + (found[path].variance - aim.variance).abs().mean()
        for path, aim in wanted.items()
    ]
    return torch.stack(parts).sum()
