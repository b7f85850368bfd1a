"""BatchNorm whose statistics come from the test batch, the source, or both, in the place of a model's own."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

Standardise = Callable[["TestBatchNorm", Tensor, Tensor], tuple[Tensor, Tensor]]
"""(layer, batch mean [C], batch variance [C]) -> the mean and variance to standardise with."""


class TestBatchNorm(_NormBase):
    """A BatchNorm with the same parameters and buffers under the same names, so that states stay interchangeable.

    Statistics are biased variances over images and positions, also for a batch of one and a single position.

    Shapes: [B, C, *S] -> [B, C, *S].
    """

    __test__ = False  # no test case for pytest
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, given: _BatchNorm, standardise: Standardise) -> None:
        super().__init__(given.num_features, given.eps, given.momentum, given.affine)
        self.load_state_dict(given.state_dict())
        self.requires_grad_(False).eval()
        self.standardise = standardise
        self.images = 1

    def forward(self, features: Tensor) -> Tensor:
        """Standardise, then scale and shift."""
        self.images = len(features)
        axes = [axis for axis in range(features.ndim) if axis != 1]
        mean, variance = self.standardise(self, features.mean(axes), features.var(axes, unbiased=False))
        shape = [1, -1] + [1] * (features.ndim - 2)
        out = (features - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        return out * self.weight.view(shape) + self.bias.view(shape) if self.affine else out


def batch_norms(model: nn.Module) -> list[str]:
    """Name BatchNorm layers that hold source statistics, by path."""
    return [
        path for path, part in model.named_modules() if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]


def replace_batch_norms(model: nn.Module, standardise: Standardise) -> None:
    """Put `TestBatchNorm` in the place of each; models without BatchNorm stay as they are."""
    for path in batch_norms(model):
        parent, _, name = path.rpartition(".")
        given = model.get_submodule(path)
        assert isinstance(given, _BatchNorm)
        new = TestBatchNorm(given, standardise).to(given.running_mean.device)  # type: ignore[union-attr]
        setattr(model.get_submodule(parent), name, new)


def mixed(weight: float) -> Standardise:
    """Count the source as N = `weight` images beside n of the batch: μ = (N μ_s + n μ_t) / (N + n), variances alike.

    N = 0 is the batch's statistics alone. Source: Schneider et al. 2020.
    """

    def standardise(layer: TestBatchNorm, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        share = weight / (weight + layer.images)
        return torch.lerp(mean, layer.running_mean, share), torch.lerp(variance, layer.running_var, share)

    return standardise
